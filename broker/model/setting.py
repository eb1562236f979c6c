"""The error for one setting of a document that people write."""

from __future__ import annotations

from typing import Final

from broker.errors import InputError

_LONGEST: Final = 120  # characters of a key that are repeated


class SettingError(InputError, ValueError):
    """The value under `key`, or the whole table if that is "", cannot be used.

    A `ValueError` too: msgspec then lets `__post_init__` raise it.
    """

    def __init__(self, key: str, problem: str, hint: str) -> None:
        self.key = "".join(c if c.isprintable() else "?" for c in key[:_LONGEST])
        self.problem = problem
        super().__init__(f"{self.key} {problem}".strip(), hint=hint)

    def below(self, key: str) -> SettingError:
        """Return the same error with its key below `key`."""
        dot = "." if key and self.key and not self.key.startswith("[") else ""
        return SettingError(f"{key}{dot}{self.key}", self.problem, self.hint)
