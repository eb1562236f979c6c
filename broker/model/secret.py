"""A value that cannot be printed, formatted, hashed, pickled or copied, and is hidden in tracebacks with locals."""

import hashlib
import hmac
import os
from typing import Final, Generic, NoReturn, TypeVar

T = TypeVar("T", bytes, str)
REDACTED: Final = "<secret>"
_DIGEST_KEY: Final = os.urandom(32)


class Secret(Generic[T]):
    """Wrap `T` so that only `reveal()`, which a reviewer can search for, returns it."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a hash in a dict is a digest of the secret

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """Return the value. The caller is responsible for it."""
        return self._value

    def digest(self) -> bytes:
        """Return a key for a cache in memory: a digest that means nothing outside this process."""
        return hashlib.blake2b(_octets(self._value), key=_DIGEST_KEY).digest()

    def __repr__(self) -> str:
        return REDACTED

    def __format__(self, spec: str) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_octets(self._value), _octets(other._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def __getstate__(self) -> NoReturn:  # since 3.11 every object has one, and it holds the slots
        raise TypeError("a secret cannot be pickled or copied")


def _octets(value: str | bytes) -> bytes:
    # A lone surrogate must not raise: UnicodeEncodeError carries the whole text
    return value.encode(errors="surrogatepass") if isinstance(value, str) else value
