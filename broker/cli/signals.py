"""What is asked to end ends in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["undisturbed"]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a first SIGINT or SIGTERM wait until the block has ended; a second one takes effect at once.

    For the main thread: tokens are given back here, and one that was not would live on for minutes.
    """
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def keep(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        handler = before[signal.Signals(number)]
        if len(waiting) > 1 and callable(handler):
            handler(number, frame)

    for number in before:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
