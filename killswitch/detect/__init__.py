"""Detectors: one a file, sans-io. Facts in, judgements out; no clock, no system call."""
