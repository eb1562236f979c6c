"""Trace context: continue the trace of a caller, and pass it on. Source: W3C Trace Context, level 2.

What is not valid is ignored, as the specification wants it: a wrong `traceparent` with its `tracestate`, a wrong
`tracestate` alone. No trace is started here.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Final

from msgspec import Struct

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER: Final = re.compile(
    r"([a-z0-9][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MEMBERS: Final = 32
_KNOWN_FLAGS: Final = 0b11  # sampled, random trace id


class Trace(Struct, frozen=True):
    """A trace, and our part of it."""

    id: str
    span: str
    flags: int
    state: str = ""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers for requests that we send."""
        parent = {"traceparent": f"00-{self.id}-{self.span}-{self.flags:02x}"}
        return {**parent, "tracestate": self.state} if self.state else parent


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin(trace: Trace | None) -> None:
    """Send the requests of this context under `trace`."""
    _current.set(trace)


def headers() -> Mapping[str, str]:
    """Return the headers for a request that is sent in this context."""
    trace = _current.get()
    return trace.headers if trace else {}


def continued(parents: Sequence[str], states: Sequence[str]) -> Trace | None:
    """Return our part of the trace that a request shows in these headers, None if it shows none."""
    found = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if not found:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(parent, 16):
        return None
    return Trace(trace, secrets.token_hex(8), int(flags, 16) & _KNOWN_FLAGS, _state(states))


def _state(states: Sequence[str]) -> str:
    members = [member for member in (text.strip(" \t") for text in ",".join(states).split(",")) if member]
    keys = [member.partition("=")[0] for member in members]
    valid = len(set(keys)) == len(keys) <= _MEMBERS and all(map(_MEMBER.fullmatch, members))
    return ",".join(members) if valid else ""
