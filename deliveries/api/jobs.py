"""Recover, replay and their jobs: `/tenants/{tenant}/endpoints/{endpoint}/recover`, `/replay`, `/jobs`."""
