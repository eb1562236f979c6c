"""Open what comes wrapped in zip files, mails and mailboxes, in each other too: in memory, within bounds."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from broker.errors import BrokerError, InputError, RefusedError
from broker.pki import archive, ber, mail
from broker.pki.foreign import refusal
from broker.pki.kinds import signed_message
from broker.pki.pem import Block, scan, text_of

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
    """Opens files one after the other. What cannot be used goes to `skipped`, with its file's name.

    Raises `TooMuchError` if all together exceed the bounds.
    """

    skipped: Callable[[str, BrokerError], None]
    bytes_left: int = MOST_BYTES
    files_left: int = _MOST_FILES

    def parts(self, name: str, data: bytes) -> Iterator[tuple[str, Block | str]]:
        """Yield each structure in a file and in those that it wraps, and the texts around them, with a file's name.

        A file of another kind, a web page without a certificate, and a damaged part go to `skipped`.
        """
        for file, content in self._files(name, data):
            try:
                yield from self._parts_of(file, content)
            except BrokerError as error:
                self.skipped(file, error)

    def _parts_of(self, file: str, data: bytes) -> Iterator[tuple[str, Block | str]]:
        if error := refusal(file, data):
            raise error
        if ber.begins_structure(data):
            yield file, Block("", data)
            return
        text = text_of(data)
        is_page = bool(_PAGE.match(text))
        found = scan(mail.without_tags(text) if is_page else text)
        yield from ((file, block) for block in found.blocks)
        for fault in found.faults:
            self.skipped(file, fault)
        if not is_page:  # whose scripts are full of the portal's own client_id
            yield file, found.text
        if is_page and not found.blocks:
            message = "it is a web page, not a certificate: the link needs a login, or has expired"
            raise InputError(message, hint="open the link in a browser, and save the file that it offers")
        if _XML.match(text) and not found.blocks:
            raise InputError("it is XML without a certificate", hint="ask for the certificate as PEM")

    def _files(self, name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
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
                yield from self._files(inner, content, depth + 1)
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
