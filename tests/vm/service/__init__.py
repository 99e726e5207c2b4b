"""Tests under a real systemd, on a machine that may be rebooted: only ``python -m tests.vm`` runs them, a file a stage."""
