"""``make demo``: the incident, replayed with real parts against a real daemon, beside an innocent workload."""
