"""Host names as they are compared: without regard to case, without the dot that may stand at their end.

``|domain`` is a suffix of whole labels: ``example.org`` is itself and all below it, and never ``notexample.org``.
"""

from __future__ import annotations

import re

DNS, TLS = "dns.question.name", "tls.client.server_name"
FIELDS = (DNS, TLS)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
MAX_NAME = 253


def domain(value: str) -> str:
    """The value of a ``|domain`` as it is looked for. Raises ValueError, with a sentence, when no host is called so."""
    name = value.lower().removesuffix(".")
    if value.startswith(("*.", ".")):
        raise ValueError(f"{value!r}: a domain stands for itself and all below it, without '*' or a dot before it")
    if not value.isascii():
        raise ValueError(f"{value!r} is not how it goes over the wire: write the name in its ASCII form (xn--…)")
    labels = name.split(".")
    if len(name) > MAX_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{value!r} is no host's name")
    if len(labels) < 2:
        raise ValueError(f"{value!r} is a whole top-level domain")
    return name


def below(name: bytes, suffix: bytes) -> bool:
    """Whether ``name`` is ``suffix`` or a name below it; both in lower case."""
    name = name.removesuffix(b".")
    return name == suffix or name.endswith(b"." + suffix)
