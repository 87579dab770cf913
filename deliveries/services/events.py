"""Published events: found, listed, and sent again. Called by the API and the portal."""
