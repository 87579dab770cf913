"""Events: `/tenants/{tenant}/events`. Publishing is in `publish.py`; what stands here about it is for the document."""
