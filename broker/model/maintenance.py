"""Maintenance windows and freezes: when the scheduler may promote or retire, which consumers notice. Times are UTC."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Final

from msgspec import Struct

_DAY: Final = timedelta(days=1)


class Freeze(Struct, frozen=True):
    """A time in which the scheduler promotes and retires nothing: from `start` until before `end`."""

    name: str
    start: datetime
    end: datetime
    reason: str = ""


class Opening(Struct, frozen=True, gc=False):
    """A time at which the scheduler may act. `window` is empty if none is configured."""

    at: datetime
    window: str


@dataclass(frozen=True, slots=True)
class Window:
    """A maintenance window that repeats. `openings` yields its beginnings after a time, in order, in UTC."""

    name: str
    openings: Callable[[datetime], Iterator[datetime]]
    length: timedelta
    _near: dict[int, tuple[datetime, ...]] = field(default_factory=dict, compare=False, repr=False)

    def next(self, at: datetime) -> Opening | None:
        """Return the first time from `at` on that lies in the window; None if it never opens again."""
        for start in self._opened_near(at):
            if at <= start:
                return Opening(start, self.name)
            if at < start + self.length:
                return Opening(at, self.name)
        return None

    def end(self, at: datetime) -> datetime:
        """Return the end of the window if `at` lies in it, else `at`."""
        found = self.next(at)
        if found is None or found.at > at:
            return at
        return max(start + self.length for start in self._opened_near(at) if start <= at)

    def _opened_near(self, at: datetime) -> tuple[datetime, ...]:
        """Return the beginnings of windows that are open on the day of `at`, and of the next one."""
        day = at.toordinal()
        if day not in self._near:  # many accounts are planned with the same windows
            self._near[day] = tuple(self._opened_on(datetime.combine(at, time(), UTC)))
        return self._near[day]

    def _opened_on(self, day: datetime) -> Iterator[datetime]:
        for start in self.openings(day - self.length):
            yield start
            if start >= day + _DAY:
                return


class Maintenance(Struct, frozen=True):
    """All windows and freezes. Without a window, any time outside of the freezes is good."""

    windows: tuple[Window, ...] = ()
    freezes: tuple[Freeze, ...] = ()

    def freeze_at(self, at: datetime) -> Freeze | None:
        """Return the freeze that `at` lies in; the one that ends last, if there are several."""
        found = None
        for freeze in self.freezes:
            if freeze.start <= at < freeze.end and (found is None or found.end < freeze.end):
                found = freeze
        return found

    def thawed(self, at: datetime) -> datetime:
        """Return `at`, or the end of the freezes that it lies in."""
        while freeze := self.freeze_at(at):
            at = freeze.end
        return at

    def opening(self, at: datetime, by: datetime) -> Opening | None:
        """Return the first time from `at` on, before `by`, that lies in a window and in no freeze; None without one."""
        while (at := self.thawed(at)) < by:
            found = self._next(at)
            if found is None or not self.freeze_at(found.at):
                return found if found and found.at < by else None
            at = found.at
        return None

    def longest_wait(self, at: datetime, by: datetime) -> tuple[datetime, datetime]:
        """Return the longest time between `at` and `by` in which nothing may happen, by its begin and end."""
        longest = (at, at)
        while at < by:
            opening = self.opening(at, by)
            longest = max(longest, (at, opening.at if opening else by), key=lambda wait: wait[1] - wait[0])
            at = self._closed_after(opening.at, by) if opening else by
        return longest

    def _closed_after(self, at: datetime, by: datetime) -> datetime:
        """Return the end of the last window that is open at `at`, or the begin of the next freeze."""
        ends = [by] if not self.windows else [w.end(at) for w in self.windows]
        freezes = (f.start for f in self.freezes if f.start > at)
        return min(max(ends), *freezes, by)

    def _next(self, at: datetime) -> Opening | None:
        if not self.windows:
            return Opening(at, "")
        first = None
        for window in self.windows:
            found = window.next(at)
            if found and (first is None or found.at < first.at):
                first = found
        return first
