"""`GET /tenants/{tenant}/endpoints/{endpoint}/stats`."""
