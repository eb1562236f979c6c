"""Outages: answers of faults before any check, and mishaps while an answer is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from partner_standin.durations import parse_duration
from partner_standin.faults import Faults
from partner_standin.responses import Response, blocked_page, error


def outage(faults: Faults, clock: Callable[[], datetime]) -> Response | None:
    """Return the answer of a fault in place of the API's, or None."""
    slow = faults.take("slow-answer")
    if slow is not None:
        time.sleep(max(0.0, parse_duration(slow).total_seconds()))
    stamp = None if faults.value("no-timestamp") is not None else clock()
    for fault, answer in _OUTAGES.items():
        value = faults.take(fault)
        if value is not None:
            return answer(value, stamp)
    return None


def with_mishap(answer: Response, faults: Faults) -> Response:
    """Return `answer` with the mishap of a fault that is on."""
    if not answer.body:
        return answer
    if faults.take("spaced-media-type") is not None:
        answer = replace(answer, media_type=f"{answer.media_type} ")
    for fault, mishap in (("reset-mid-body", "reset"), ("cut-mid-body", "cut")):
        if faults.take(fault) is not None:
            return replace(answer, mishap=mishap)
    slow = faults.take("slow-body")
    if slow is not None:
        return replace(answer, mishap=f"drip={max(0.0, parse_duration(slow).total_seconds())}")
    return answer


def _unavailable(wait: str, stamp: datetime | None) -> Response:
    seconds = max(0, round(parse_duration(wait).total_seconds()))
    return error(50399, "Service unavailable", now=stamp, outcome="status-503").plus(("Retry-After", str(seconds)))


_OUTAGES: Final[Mapping[str, Callable[[str, datetime | None], Response]]] = {
    "status-500": lambda _, stamp: error(50099, "Internal server error", now=stamp, outcome="status-500"),
    "status-503": _unavailable,
    "html-403": lambda *_: blocked_page(),
    "empty-body": lambda *_: Response(200, outcome="empty-body"),
    "not-json": lambda *_: Response(200, b'{"_links": {"self": {"href": ', outcome="not-json"),
    "garbage": lambda *_: Response(200, mishap="garbage", outcome="garbage"),
}
