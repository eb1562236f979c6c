"""Name the kinds of files that are not read, by their first bytes, and the way out for each."""

import shlex
from typing import Final

from broker.errors import RefusedError

_UNPACK: Final = "unpack it, and give the files in it"
_SAVE: Final = "save the certificate as a file of its own, or copy its text into one, and give that"
_CONVERT: Final = (
    "convert it: keytool -importkeystore -srckeystore FILE -srcstoretype {} "
    "-destkeystore FILE.p12 -deststoretype PKCS12"
)
_TAR_MAGIC: Final = slice(257, 262)


_PICTURE: Final = ("a picture", _SAVE)
_BY_MAGIC: Final = {
    b"\xfe\xed\xfe\xed": ("a JKS, an old Java key store", _CONVERT.format("JKS")),
    b"\xce\xce\xce\xce": ("a JCEKS, an old Java key store", _CONVERT.format("JCEKS")),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    b"\x1f\x8b": ("a gzip file", _UNPACK),
    b"BZh": ("a bzip2 file", _UNPACK),
    b"\xfd7zXZ\0": ("an xz file", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("a zstd file", _UNPACK),
    b"MSCF": ("a cabinet archive", _UNPACK),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": (
        "an Outlook message (.msg) or an old Office document",
        "save its attachment, or the mail as .eml, and give that",
    ),
    b"\x78\x9f\x3e\x22": ("winmail.dat (TNEF) of Outlook", "ask for the mail again, as plain text"),
    b"%PDF-": ("a PDF document", _SAVE),
    b"{\\rtf": ("an RTF document", _SAVE),
    b"PuTTY-User-Key-File": ("a PuTTY private key", "convert it: puttygen FILE -O private-openssl -o key.pem"),
    b"ssh-": ("an SSH public key", "ask for the certificate"),
    b"\x89PNG": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"GIF8": _PICTURE,
}


class PictureError(RefusedError):
    """A picture: many mails have some."""


def refusal(name: str, data: bytes) -> RefusedError | None:
    """Return the error for the file `name` with this `data` if it is of a kind that is not read, else None."""
    found = next((kind for magic, kind in _BY_MAGIC.items() if data.startswith(magic)), None)
    if data[_TAR_MAGIC] == b"ustar":
        found = ("a tar archive", _UNPACK)
    if found is None:
        return None
    words, hint = found
    kind = PictureError if found is _PICTURE else RefusedError
    return kind(f"it is {words}", hint=hint.replace("FILE", quoted(name)))


def quoted(name: str) -> str:
    """Return the name of a file for a command in a hint, `FILE` if a terminal would obey it."""
    return shlex.quote(name) if name.isprintable() else "FILE"
