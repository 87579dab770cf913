"""Why each endpoint of a tenant got an event or not, as things stood when it was published. Called by the API and the portal.

Answered from kept versions of the settings, so that publishing pays nothing for it: there is no row for an endpoint
that an event was not sent to.
"""
