"""SHA-256 fingerprints of certificates, as people write them."""

import re

from broker.errors import InputError


def format_fingerprint(fingerprint: str) -> str:
    """Return a fingerprint as openssl and browsers show it: `AB:CD:…`."""
    upper = fingerprint.upper()
    return ":".join(upper[i : i + 2] for i in range(0, len(upper), 2))


def parse_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint in lower-case hex; accepts colons, blanks, upper case and openssl's prefix.

    Raises `InputError`, which names SHA-1 and MD5 fingerprints.
    """
    bare = re.sub(r"^sha-?256( fingerprint)?\s*[:=]|[\s:]", "", text.strip().lower())
    if re.fullmatch(r"[0-9a-f]{64}", bare):
        return bare
    hint = "take it from: openssl x509 -noout -fingerprint -sha256 -in FILE"
    old = {40: "SHA-1", 32: "MD5"}.get(len(bare)) if re.fullmatch(r"[0-9a-f]+", bare) else None
    if old:
        raise InputError(f"this is a {old} fingerprint; only SHA-256 is accepted", hint=hint)
    raise InputError("this is not a SHA-256 fingerprint: it needs 64 hexadecimal digits", hint=hint)
