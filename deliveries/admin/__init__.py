"""The admin of deliveries, for operators: where things go, what became of them, and the work of the platform itself.

History is read-only, and so is everything else: what changes something is an action of `services/bulk_actions.py`, which
`actions` asks for first. Payloads, headers and answers are not shown here: who needs them signs in to the tenant's
portal as support, where the tenant sees it in its own audit log.
"""

from deliveries.admin import endpoints, history, sources, work

__all__ = ["endpoints", "history", "sources", "work"]
