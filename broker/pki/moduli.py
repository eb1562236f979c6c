"""Recognise RSA moduli that anybody can factor."""

import math
from functools import lru_cache
from typing import Final

_LARGEST: Final = 8192  # bits; larger ones would only keep a verifier busy
_SMALL: Final = 1000
_FERMAT_STEPS: Final = 100
_PRIMES: Final = tuple(n for n in range(3, _SMALL, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2)))
_PRODUCT: Final = 2 * math.prod(_PRIMES)
_ROCA_PRIMES: Final = _PRIMES[:38]  # 3 to 167 (Nemec et al., "The Return of Coppersmith's Attack", 2017)
_SQUARES: Final = (0, 1, 4, 9)  # modulo 16
_GENERATOR: Final = 65537


@lru_cache(256)
def flaw(modulus: int) -> str:
    """Return why `modulus` can be factored in no time, "" if nothing is known against it."""
    if modulus.bit_length() > _LARGEST:
        return ""
    if math.gcd(modulus, _PRODUCT) > 1:
        return "its modulus has a small factor"
    if all(modulus % p in _powers(p) for p in _ROCA_PRIMES):
        return "made by a chip with the ROCA fault, CVE-2017-15361"
    root = math.isqrt(modulus) + 1
    for middle in range(root, root + _FERMAT_STEPS):  # of two primes that are close to each other
        rest = middle * middle - modulus
        if rest % 16 in _SQUARES and math.isqrt(rest) ** 2 == rest:
            return "its two primes are too close to each other"
    return ""


@lru_cache(len(_ROCA_PRIMES))
def _powers(prime: int) -> frozenset[int]:
    return frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(prime))
