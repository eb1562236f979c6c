"""Open what comes wrapped in zip files, mails and mailboxes, in each other too: in memory, within bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from broker.errors import BrokerError, InputError, RefusedError
from broker.pki import archive, ber, mail
from broker.pki.kinds import signed_message

LARGEST: Final = 1024 * 1024  # bytes of one file; a mail or an archive may have more
MOST_BYTES: Final = 16 * 1024 * 1024  # of all files together, those unpacked from others too
_MOST_FILES: Final = 512
_DEEPEST: Final = 5


class TooMuchError(RefusedError):
    """All files together exceed the bounds."""


@dataclass(slots=True)
class Unwrapper:
    """Opens files one after the other. One that cannot be opened goes to `skipped`, with its name."""

    skipped: Callable[[str, BrokerError], None]
    bytes_left: int = MOST_BYTES
    files_left: int = _MOST_FILES

    def opened(self, name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each file in `data`, or of itself if it wraps none. Raises `TooMuchError`."""
        self.bytes_left -= len(data)
        self.files_left -= 1
        if self.bytes_left < 0 or self.files_left < 0 or depth > _DEEPEST:
            message = (
                f"the files are more than {MOST_BYTES} bytes, {_MOST_FILES} files, or {_DEEPEST} deep in each other"
            )
            raise TooMuchError(message, hint="give only those with certificates or keys")
        try:
            if archive.is_zip(data):
                inside = archive.members(data)
            elif mail.is_mail(data):
                inside = mail.parts(data)
            elif ber.begins_structure(data) and mail.is_mail(signed := _signed_message(data)):
                inside = mail.parts(signed)
            elif len(data) > LARGEST:
                raise InputError(f"it has {len(data)} bytes, more than {LARGEST}", hint="is this the right file?")
            else:
                yield name, data
                return
            for inner, content in inside:
                yield from self.opened(inner, content, depth + 1)
        except TooMuchError:
            raise
        except BrokerError as error:
            self.skipped(name, error)


def _signed_message(data: bytes) -> bytes:
    """Return the mail in an opaque signature; its signer's certificate is no part of a reply."""
    try:
        return signed_message(ber.to_der(data))
    except InputError:  # whoever reads the file reports it
        return b""
