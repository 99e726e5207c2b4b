"""killswitch: an eBPF host-level kill switch for AI agents."""

__version__ = "0.1.0"
