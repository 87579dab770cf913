"""What an endpoint received over time: counts and latencies by minute, hour or day. Called by the API and the portal."""
