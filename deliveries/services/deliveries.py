"""Deliveries and their attempts: found, listed, tried again by hand, cancelled. Called by the API and the portal."""
