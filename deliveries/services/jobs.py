"""Recover and replay: many events to one endpoint again, in the background. Called by the API, the portal and job_tasks.

A job works through events or deliveries in batches. Each batch and the place that it reached are one transaction, so a
worker that is killed loses nothing and repeats nothing; whoever continues begins behind the last batch.
"""
