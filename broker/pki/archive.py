"""Read zip files from a reply within bounds, independent of the sizes in the file."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

from broker.errors import InputError, RefusedError

_MOST_MEMBERS: Final = 64
_MOST_BYTES: Final = 1024 * 1024  # of all members together, unpacked
_MOST_RATIO: Final = 100
_RATIO_FROM: Final = 16 * 1024  # a few repeated lines of text may well pack 1:100
_SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
_ENCRYPTED: Final = 0x1
_ADDED_BY_SYSTEM: Final = re.compile(r"(?:^|/)(?:__MACOSX/|\._[^/]*$|\.DS_Store$|Thumbs\.db$|desktop\.ini$)")
_OFFICE: Final = re.compile(r"\[Content_Types\]\.xml$|(?:word|xl|ppt)/")
_UNPACK: Final = "unpack it first"


def is_zip(data: bytes) -> bool:
    """Return whether `data` begins as a zip file does."""
    return data.startswith(_SIGNATURES)


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file in a zip, in memory; the names must not be used as paths.

    Files that macOS and Windows add by themselves (__MACOSX, .DS_Store) are left out.

    Raises `RefusedError` for an encrypted or exploding archive, `InputError` for a broken one.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(files) > _MOST_MEMBERS:
                raise RefusedError(f"the zip file has {len(files)} files, more than {_MOST_MEMBERS}", hint=_UNPACK)
            if any(_OFFICE.match(entry.filename) for entry in files):
                raise RefusedError("this is an Office document", hint="save what is in it as text, and give that")
            left = _MOST_BYTES
            for entry in files:
                content = _unpacked(archive, entry, left)
                left -= len(content)
                if not _ADDED_BY_SYSTEM.search(entry.filename):
                    yield entry.filename, content
    # All that zipfile raises for bytes that are no zip file.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError) as error:
        raise InputError("the zip file is damaged", hint="ask for it again, as an attachment") from error
    except (NotImplementedError, RuntimeError) as error:
        raise RefusedError("the zip file uses an unsupported compression", hint=_UNPACK) from error


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, left: int) -> bytes:
    if entry.flag_bits & _ENCRYPTED:
        raise RefusedError("the zip file is encrypted", hint="unpack it with its password, then import its content")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedError("the zip file uses an unsupported compression", hint=_UNPACK)
    with archive.open(entry) as member:
        content = member.read(left + 1)
    if len(content) > left:
        raise RefusedError(f"the zip file unpacks to more than {_MOST_BYTES} bytes", hint=_UNPACK)
    if len(content) > max(_RATIO_FROM, _MOST_RATIO * max(entry.compress_size, 1)):
        raise RefusedError("the zip file unpacks to more than 100 times its size", hint=_UNPACK)
    return content
