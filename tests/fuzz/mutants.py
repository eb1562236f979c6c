"""Mutants of good input: bytes flipped, cut, doubled, swapped between places. The same seed makes the same ones."""

from __future__ import annotations

import random
from typing import Final

__all__ = ["mutant"]

_LENGTHS: Final = (1, 1, 2, 4, 16, 200)
_TELLING: Final = (0x00, 0x01, 0x05, 0x0C, 0x13, 0x14, 0x16, 0x1E, 0x24, 0x2D, 0x30, 0x31, 0x7F, 0x80, 0x84, 0xA0, 0xFF)


def mutant(good: bytes, chance: random.Random) -> bytes:
    """Return `good` after a few changes: one mostly, a dozen at the most."""
    data = bytearray(good)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 12))):
        if data:
            _change(data, chance)
    return bytes(data)


def _change(data: bytearray, chance: random.Random) -> None:
    at, length = chance.randrange(len(data)), chance.choice(_LENGTHS)
    match chance.randrange(7):
        case 0:
            data[at] = chance.randrange(256)
        case 1:
            data[at] ^= 1 << chance.randrange(8)
        case 2:
            data[at] = chance.choice(_TELLING)  # tags, lengths and marks of DER, PEM and text
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = chance.randbytes(length)
        case 5:
            other = chance.randrange(len(data))
            data[at : at + length] = data[other : other + length]
        case _:
            data[at:at] = data[at : at + length] * chance.choice((1, 1, 50))
