"""Erasing an event's payload and every copy and echo of it that is kept. Called by the API and the portal."""
