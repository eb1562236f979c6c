"""The partner's answer as a `requests.Response` with the broker's errors.

Errors of requests and urllib3 quote the partner (a reason phrase, a chunk line, a header), which may quote our secrets.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import requests
import urllib3

from broker.model.redactor import Redactor
from broker.network import FAULTS, UNREADABLE, TooMuchError, behind
from broker.upstream.exchange import described

FAILURES: Final = (requests.RequestException, urllib3.exceptions.HTTPError, *FAULTS)
LARGEST: Final = 64 * 1024 * 1024  # bytes of a body; `stream=True` has no limit
_PIECE: Final = 64 * 1024


def failure(error: Exception, request: requests.PreparedRequest) -> requests.RequestException:
    """Return `error` as an error of requests whose text quotes nothing."""
    kind = type(error) if isinstance(error, requests.RequestException) else requests.ConnectionError
    if kind is requests.ConnectionError and any(isinstance(found, TimeoutError) for found in behind(error)):
        kind = requests.ReadTimeout
    if isinstance(error, TooMuchError):
        return kind(f"the answer is larger than {LARGEST} bytes; use stream=True", request=request)
    if issubclass(kind, requests.exceptions.ContentDecodingError):
        return kind("the answer cannot be decompressed", request=request)
    return kind("no answer in time" if issubclass(kind, requests.Timeout) else described(error), request=request)


class PartnerResponse(requests.Response):
    """A copy of `response` whose request and URL hold no secrets."""

    def __init__(
        self, response: requests.Response, request: requests.PreparedRequest, redactor: Callable[[], Redactor]
    ) -> None:
        super().__init__()
        self.__dict__ |= response.__dict__
        self.request, self.url = request, request.url or ""
        self.encoding = self.encoding if _is_charset(self.encoding) else None
        self._redactor = redactor

    @property
    def content(self) -> bytes:
        """The body; raise `requests.RequestException` for one that is incomplete or larger than 64 MiB."""
        kept = vars(self)
        if kept["_content"] is False and not kept["_content_consumed"]:
            self._content = b"".join(self._pieces(super().iter_content(_PIECE), LARGEST))
        return super().content

    def iter_content(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield the body in pieces, as `requests` does; raise `requests.RequestException` if it is incomplete."""
        return self._pieces(super().iter_content(*args, **kwargs), math.inf)

    def json(self, **kwargs: Any) -> Any:
        """Return the body as JSON; raise a `requests.JSONDecodeError` that does not hold the body."""
        with suppress(ValueError, RecursionError):
            return super().json(**kwargs)
        raise requests.JSONDecodeError("the answer is not JSON", "", 0)

    def raise_for_status(self) -> None:
        """Raise `requests.HTTPError` for a status of 400 or more, without the partner's reason phrase."""
        if self.status_code >= 400:  # noqa: PLR2004  # RFC 9110, section 15
            url = self._redactor().redact(self.url)  # the partner may have written it, in a redirect
            raise requests.HTTPError(f"the partner answered {self.status_code} for {url}", response=self)

    def _pieces(self, pieces: Iterator[Any], largest: float) -> Iterator[Any]:
        count = 0
        while piece := self._piece(pieces, largest - count):
            if isinstance(piece, Exception):
                raise piece
            count += len(piece)
            yield piece

    def _piece(self, pieces: Iterator[Any], most: float) -> Any:
        try:
            piece = next(pieces, b"")
            if len(piece) > most:
                raise TooMuchError
        except FAILURES as error:
            self.raw.close()  # or requests would read the rest before it follows a redirect
            return failure(error, self.request)
        return piece


def _is_charset(name: str | None) -> bool:
    """Return whether bytes can be decoded as `name`, which the partner wrote: Python also has "idna", "undefined"."""
    try:
        str(b"a", name or "utf-8", "replace")
    except UNREADABLE:
        return False
    return True
