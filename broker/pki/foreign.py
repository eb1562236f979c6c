"""Name the kinds of files that are not read, by their first bytes, and the way out for each."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import Final

_UNPACK: Final = "unpack it, and give the files in it"
_SAVE: Final = "save the certificate as a file of its own, or copy its text into one, and give that"
_CONVERT: Final = (
    "convert it: keytool -importkeystore -srckeystore FILE -srcstoretype {} "
    "-destkeystore FILE.p12 -deststoretype PKCS12"
)
_TAR_MAGIC: Final = slice(257, 262)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A kind of file that is not read."""

    words: str  # "a PDF document"
    hint: str
    harmless: bool = False  # a picture in a mail


_IMAGE: Final = Foreign("a picture", _SAVE, harmless=True)
_BY_MAGIC: Final = {
    b"\xfe\xed\xfe\xed": Foreign("a JKS, an old Java key store", _CONVERT.format("JKS")),
    b"\xce\xce\xce\xce": Foreign("a JCEKS, an old Java key store", _CONVERT.format("JCEKS")),
    b"7z\xbc\xaf\x27\x1c": Foreign("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": Foreign("a RAR archive", _UNPACK),
    b"\x1f\x8b": Foreign("a gzip file", _UNPACK),
    b"BZh": Foreign("a bzip2 file", _UNPACK),
    b"\xfd7zXZ\0": Foreign("an xz file", _UNPACK),
    b"\x28\xb5\x2f\xfd": Foreign("a zstd file", _UNPACK),
    b"MSCF": Foreign("a cabinet archive", _UNPACK),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": Foreign(
        "an Outlook message (.msg) or an old Office document", "save its attachment, or the mail as .eml, and give that"
    ),
    b"\x78\x9f\x3e\x22": Foreign("winmail.dat (TNEF) of Outlook", "ask for the mail again, as plain text"),
    b"%PDF-": Foreign("a PDF document", _SAVE),
    b"{\\rtf": Foreign("an RTF document", _SAVE),
    b"PuTTY-User-Key-File": Foreign("a PuTTY private key", "convert it: puttygen FILE -O private-openssl -o key.pem"),
    b"ssh-": Foreign("an SSH public key", "ask for the certificate"),
    b"\x89PNG": _IMAGE,
    b"\xff\xd8\xff": _IMAGE,
    b"GIF8": _IMAGE,
}


def foreign_kind(name: str, data: bytes) -> Foreign | None:
    """Return the kind of the file `name` with this `data` if it is one that is not read, else None."""
    if data[_TAR_MAGIC] == b"ustar":
        return Foreign("a tar archive", _UNPACK)
    kind = next((kind for magic, kind in _BY_MAGIC.items() if data.startswith(magic)), None)
    return replace(kind, hint=kind.hint.replace("FILE", quoted(name))) if kind else None


def quoted(name: str) -> str:
    """Return the name of a file for a command in a hint, `FILE` if a terminal would obey it."""
    return shlex.quote(name) if name.isprintable() else "FILE"
