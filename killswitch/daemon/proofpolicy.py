"""The policy of the canary alone: two rules that the kernel has to judge by itself, for the self-test to see them fire.

It is compiled into the same tables as the operators' policies, so what is proven is what they rest on. No workload of
theirs is ever under it, and it is not told of among their policies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from killswitch.errors import PolicyError
from killswitch.policy.compile import compile_policies
from killswitch.policy.compiled import Compiled
from killswitch.policy.load import load_text
from killswitch.policy.model import Policy

NAME = "killswitch-proof"
MUST_NOT_RUN = "killswitch-canary-must-not-run"  # an argument
MAY_RUN = "killswitch-canary-may-run"
MUST_NOT_LEAVE = b"killswitch-canary-must-not-leave"  # the first bytes of a flow
_CGROUP = re.compile(r"\.proof-\d+-\d+")

_TEXT = f"""
apiVersion: killswitch/v1
kind: Policy
metadata: {{name: {NAME}, version: 1}}
workloads:
  - cgroup: /killswitch-canary-only  # by name: the self-test puts its canary under it, and nothing else
mode: enforce
rules:
  - id: canary-must-not-run
    title: The canary of the self-test executed what it must not
    level: informational
    on: exec
    match:
      token: {{process.args|cased: {MUST_NOT_RUN}}}
    condition: token
    response: [kill_process]
  - id: canary-must-not-leave
    title: The canary of the self-test sent what it must not
    level: informational
    on: wire
    match:
      opening: {{wire.sent|startswith|cased: {MUST_NOT_LEAVE.decode()}}}
    condition: opening
    response: [deny]
"""


def policy() -> Policy:
    return load_text(_TEXT, "built-in")


def compile_with(policies: Sequence[Policy]) -> Compiled:
    """These policies and the canary's, which comes last. Where there is no room for it beside them, it is left out, and the
    self-test tells that detection was not proven. Raises PolicyError with what is wrong with ``policies``."""
    try:
        return compile_policies([*policies, policy()])
    except PolicyError:
        return compile_policies(policies)


def index_in(compiled: Compiled) -> int | None:
    """Which of the compiled policies is the canary's."""
    return next((i for i, p in enumerate(compiled.policies) if p.file == "built-in" and p.name == NAME), None)


def operators(compiled: Compiled) -> tuple[Policy, ...]:
    """The policies but for the canary's, which is the last where it is there at all."""
    own = index_in(compiled)
    return compiled.policies if own is None else compiled.policies[:own]


def is_canary(cgroup: str, parent: str) -> bool:
    """Whether this path is a self-test's, of whatever daemon with this ``cgroup_parent``."""
    return cgroup.startswith(parent) and _CGROUP.fullmatch(cgroup.removeprefix(parent)) is not None
