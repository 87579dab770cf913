"""Deliveries and attempts: `/tenants/{tenant}/deliveries`."""
