"""``make eval``: real attacks and real work, each run as a watched workload under the shipped policies, and what came of it."""
