"""Nothing here is collected but in a virtual machine whose process 1 is systemd: the tests install units and reboot."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("KS_TEST_VM") == "systemd" else ["test_*"]
