"""Trace context: what is continued, and what is ignored."""

from __future__ import annotations

import pytest

from broker.telemetry import trace
from broker.telemetry.trace import continued

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{ID}-{SPAN}-01"


def test_a_trace_is_continued_with_our_span() -> None:
    found = continued([GOOD], ["a=1", "b@x= 2"])
    assert found
    assert (found.id, len(found.span), found.state) == (ID, 16, "a=1,b@x= 2")
    assert found.span != SPAN
    assert found.headers == {"traceparent": f"00-{ID}-{found.span}-01", "tracestate": "a=1,b@x= 2"}


@pytest.mark.parametrize(("given", "kept"), [("00", 0), ("03", 3), ("ff", 3)])
def test_only_known_flags_are_passed_on(given: str, kept: int) -> None:
    found = continued([GOOD[:-2] + given], [])
    assert found
    assert found.headers == {"traceparent": f"00-{ID}-{found.span}-{kept:02x}"}


def test_a_newer_version_may_say_more() -> None:
    for text in (f"cc-{ID}-{SPAN}-01", f"cc-{ID}-{SPAN}-01-more"):
        found = continued([text], [])
        assert found
        assert found.headers["traceparent"].startswith(f"00-{ID}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        GOOD.upper(),
        f" {GOOD}",
        f"{GOOD} ",
        f"{GOOD}\n",
        f"{GOOD}-more",
        f"ff-{ID}-{SPAN}-01",
        f"cc-{ID}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID[:-1]}-{SPAN}-01",
        f"00-{ID}-{SPAN}-1",
        f"00-{ID[:-1]}g-{SPAN}-01",
        f"00-{ID[:-1]}\u0664-{SPAN}-01",
    ],
)
def test_invalid_parents_are_ignored(text: str) -> None:
    assert continued([text], ["a=1"]) is None


def test_two_parents_are_ignored() -> None:
    assert continued([GOOD, GOOD], []) is None
    assert continued([], ["a=1"]) is None


@pytest.mark.parametrize(
    "states",
    [
        ["A=1"],
        ["a"],
        ["a="],
        ["a=1", "a=2"],
        ["a=1=2"],
        ["a=\x7f"],
        ["a=1\r\nX-Vault-Token: s"],
        ["@a=1"],
        [f"{'a' * 257}=1"],
        [f"a={'b' * 257}"],
        [",".join(f"a{n}=1" for n in range(33))],
    ],
)
def test_an_invalid_state_is_dropped_alone(states: list[str]) -> None:
    found = continued([GOOD], states)
    assert found
    assert (found.id, found.state) == (ID, "")


def test_a_long_state_is_kept() -> None:
    members = [f"a{n}@v=x" for n in range(32)]
    found = continued([GOOD], [", ".join(members[:16]), "", "\t,".join(members[16:])])
    assert found
    assert found.state == ",".join(members)


def test_requests_carry_their_trace_context() -> None:
    assert trace.headers() == {}
    found = continued([GOOD], [])
    trace.begin(found)
    try:
        assert trace.headers() == (found and found.headers)
    finally:
        trace.begin(None)
