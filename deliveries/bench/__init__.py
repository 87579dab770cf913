"""`manage.py bench`: how fast it is on this machine, and whether nothing is lost.

Programs that run as processes of their own, without Django, talked to in lines of JSON (`children`):

    receiver    counts distinct ids and repeats, verifies signatures, measures latency, misbehaves when told to
    publisher   publishes over HTTP on a number of connections
    dns         a name server for host names that lead to loopback addresses, or nowhere

The measurement: `stage` makes a database of its own and clears up, `world` fills it with tenants and endpoints,
`platform` runs web server and workers, `rig` has all of it up, `scenarios` measures, `report` prints.
"""
