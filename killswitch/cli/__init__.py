"""The command ``killswitch``. It reaches the daemon through ``killswitch.control.client`` alone."""
