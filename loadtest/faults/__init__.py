"""Faults in real processes, seeded and replayable, in Jepsen's split.

`schedule` says when which fault comes, from a seed; `nemeses` inject it into a `world` of real
processes; `workload` sends requests and streams meanwhile, and what comes back is written into a
`history`; `checkers` judge it, as pure functions. `python -m loadtest.faults` runs it all.
"""
