"""`GET /tenants/{tenant}/events/{event}/explain`: every endpoint, and why it got the event or not."""
