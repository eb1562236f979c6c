"""Custom requests to the partner, with a bundle that is lent for them and held in memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any

from msgspec import Struct

from broker.client.paging import Pages
from broker.compose.proxies import proxy_for
from broker.config import Config
from broker.copies import replace
from broker.errors import BrokerError
from broker.model.authentication import Request
from broker.model.bundle import Bundle, Source, Wanted
from broker.model.redactor import Redactor
from broker.model.secret import Secret
from broker.partners.request import recipe
from broker.signals import undisturbed
from broker.telemetry import log
from broker.upstream.call import Calls, parsed, quota_of
from broker.upstream.credentials import credentials_of
from broker.upstream.exchange import Line, Reply


class Call(Struct, frozen=True):
    """The request that is wanted; `timeout` is for each exchange, and `everything` follows the pages of a list."""

    method: str
    path: str  # below the account's base URL
    headers: Mapping[str, str]
    timeout: timedelta
    everything: bool = False
    body: bytes = b""


class Answer:
    """An answer of the partner. What is shown of it holds no secret of the set."""

    def __init__(self, calls: Calls, reply: Reply, page: str) -> None:
        self._calls, self._reply = calls, reply
        self.page = page  # such as "2 of 5"
        self.quota = quota_of(reply)  # what is left, "" if the partner does not say

    @property
    def head(self) -> list[str]:
        """Status and headers."""
        return self._calls.head(self._reply)

    @cached_property
    def body(self) -> bytes:
        """The body; beside what is hidden, as it is."""
        return self._calls.shown(self._reply).body

    @cached_property
    def document(self) -> Any:
        """The body's JSON, None for an empty one; raise `NoAnswerError`."""
        return self._calls.document(self._reply)

    def require_success(self) -> None:
        """Raise an error of `upstream.call` for any status but 2xx."""
        self._calls.require_success(self._reply)


class Caller(Struct, frozen=True):
    """Calls the partner with a bundle."""

    bundle: Bundle
    config: Config

    def answers(self, call: Call) -> Iterator[Answer]:
        """Yield the answer, or those of all pages."""
        bundle = self.bundle
        log.hide(Redactor([*bundle.secrets.values(), Secret(bundle.client_id)]).redact)
        credentials = credentials_of(bundle, proxy_for(self.config, bundle.account))
        with closing(Line(credentials)) as line:
            of = (bundle.account, bundle.application)
            calls = Calls(credentials, of, call.timeout, line if call.everything else None)
            yield from _answers(calls, _request(bundle, call), call.everything)


@contextmanager
def lent(source: Source, wanted: Wanted, config: Config, say: Callable[[str], None]) -> Iterator[Caller]:
    """Lend a bundle for calls, and give it back, also after Ctrl-C."""
    granted = source.grant(wanted)
    try:
        yield Caller(granted.bundle, config)
    finally:
        with undisturbed():
            try:
                source.give_back(granted)
            except BrokerError as error:
                say(f"the lease was not given back ({error.message}): it ends at {granted.lease.expires:%F %TZ}")


def _answers(calls: Calls, request: Request, everything: bool) -> Iterator[Answer]:
    pages, number, total = Pages(), 1, ""
    while True:
        reply = calls.send(request)
        yield Answer(calls, reply, f"{number}{total}")
        document = parsed(reply) if everything else None
        if not isinstance(document, dict) or not (url := pages.after(document, calls.credentials, request.url)):
            return
        request = replace(request, url=url)
        number, count = number + 1, document.get("totalPage")
        total = f" of {count}" if isinstance(count, int) else ""


def _request(bundle: Bundle, call: Call) -> Request:
    made = recipe(bundle.base_url, bundle.authentication, call.method, call.path)
    for name, value in call.headers.items():
        made = made.with_header(name, value)
    return replace(made, body=call.body)
