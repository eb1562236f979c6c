"""Open what comes wrapped in zip files, mails and mailboxes, in each other too: in memory, within bounds."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from broker.errors import BrokerError, InputError, RefusedError
from broker.pki import archive, der, mail
from broker.pki.foreign import refusal
from broker.pki.kinds import signed_message
from broker.pki.pem import Block, from_base64, scan, text_of

LARGEST: Final = 1024 * 1024  # bytes of one file; a mail or an archive may have more
MOST_BYTES: Final = 16 * 1024 * 1024  # of all files together, those unpacked from others too
_MOST_FILES: Final = 512
_DEEPEST: Final = 5
_XML: Final = re.compile(r"\s*<\?xml")
_PAGE: Final = re.compile(
    r"\s*(?:<!doctype\s+html|<html|<head|<\?xml[^>]{0,200}>\s*<(?:!doctype\s+)?html)", re.IGNORECASE
)


class TooMuchError(RefusedError):
    """All files together exceed the bounds."""


@dataclass(slots=True)
class Unwrapper:
    """Opens files one after the other, within bounds for all together."""

    bytes_left: int = MOST_BYTES
    files_left: int = _MOST_FILES

    def files(self, name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes | BrokerError]]:
        """Yield name and content of a file, or of those in it; or why it cannot be opened. Raises `TooMuchError`."""
        self.bytes_left -= len(data)
        self.files_left -= 1
        if self.bytes_left < 0 or self.files_left < 0 or depth > _DEEPEST:
            message = (
                f"the files are more than {MOST_BYTES} bytes, {_MOST_FILES} files, or {_DEEPEST} deep in each other"
            )
            raise TooMuchError(message, hint="give only those with certificates or keys")
        try:
            if (inside := _inside(name, data)) is None:
                yield name, data
                return
            for inner, content in inside:
                yield from self.files(inner, content, depth + 1)
        except TooMuchError:
            raise
        except BrokerError as error:
            yield name, error


def parts_of(file: str, data: bytes) -> Iterator[Block | str | BrokerError]:
    """Yield each structure in a file that wraps no other, the text around them, and what is damaged or not read."""
    if foreign := refusal(file, data):
        yield foreign
        return
    if der.begins_structure(data):
        yield Block("", data)
        return
    text = text_of(data)
    is_page = bool(_PAGE.match(text))
    try:
        found = scan(mail.without_tags(text) if is_page else text)
    except InputError as error:
        yield error
        return
    yield from found.blocks
    yield from found.faults
    if not is_page:  # whose scripts are full of the portal's own client_id
        yield found.text
    if is_page and not found.blocks:
        message = "it is a web page, not a certificate: the link needs a login, or has expired"
        yield InputError(message, hint="open the link in a browser, and save the file that it offers")
    elif _XML.match(text) and not found.blocks:
        yield InputError("it is XML without a certificate", hint="ask for the certificate as PEM")


def _inside(name: str, data: bytes) -> Iterable[tuple[str, bytes]] | None:
    """Return the files in `data`, None if it is no archive, mail or base64 of a file."""
    if archive.is_zip(data):
        return archive.members(data)
    if mail.is_mail(data):
        return mail.parts(data)
    if der.begins_structure(data) and mail.is_mail(signed := signed_message(data)):
        return mail.parts(signed)
    if len(data) > LARGEST:
        raise InputError(f"it has {len(data)} bytes, more than {LARGEST}", hint="is this the right file?")
    decoded = from_base64(data) or b""
    return [(name, decoded)] if archive.is_zip(decoded) or b"-----BEGIN" in decoded else None
