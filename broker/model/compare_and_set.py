"""Change a stored value under compare-and-set: read, apply a pure change, write; after a conflict, begin again."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from broker.errors import ConflictError

T = TypeVar("T")
V = TypeVar("V", bound=int)

ATTEMPTS: Final = 20  # twenty concurrent writers never needed as many
PAUSE: Final = 0.005  # seconds, for each attempt that another writer won


def compare_and_set(
    name: str,
    read: Callable[[], tuple[T, V]],
    write: Callable[[T, V], object],
    landed: Callable[[T, V], bool],
    change: Callable[[T], T],
) -> T:
    """Apply `change` to the newest value and store the outcome; raise `ConflictError` if others keep winning.

    `change` runs again on each newer value, so it must be pure; it returns its argument when nothing is left to do.
    `read` returns a value and its version. `write` stores the next one, or raises `ConflictError`. `landed` returns
    whether the version after the given one is this value: a write whose answer was lost comes back as a conflict with
    itself, and is not made again on top of later changes of others.
    """
    for attempt in range(ATTEMPTS):
        time.sleep(random.uniform(0, PAUSE * max(0, attempt - 1)))  # noqa: S311  # no secret: it spreads the writers
        seen, version = read()
        wanted = change(seen)
        if wanted == seen:
            return wanted
        try:
            write(wanted, version)
        except ConflictError:
            if landed(wanted, version):
                return read()[0]
        else:
            return wanted
    raise ConflictError(f"{name} kept changing", hint="others write to it: run the same command again")
