"""A webhook: one POST over HTTPS, signed, to an address in the Internet.

The host name is resolved once, every address that it has is checked, and the connection goes to the first of those that
answers: a name server that changes its answer cannot lead it elsewhere. Redirects are not followed. Nothing that the
server says is quoted but its status.
"""

import hashlib
import hmac
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from broker.errors import InputError, PartnerUnavailableError, RefusedError
from broker.model.clock import Clock
from broker.model.secret import Secret
from broker.network import FAULTS, Deadline, answered, http_request, is_loopback, is_public, opened, resolved

_LARGEST: Final = 64 * 1024  # bytes of an answer's head; the body is not read
_LONGEST_SLACK: Final = 3500  # characters: Slack cuts at 4,000
_SUCCESS, _REDIRECT = 2, 3  # the first digit of the status


class WebhookError(PartnerUnavailableError):
    """The webhook took nothing. Later it may."""


class Webhook(Struct, frozen=True):
    """A webhook.

    For the form "json" the secret is the key of the HMAC. For "slack" it is the path of the URL, by which Slack knows a
    channel, and the body is `{"text": …}` alone.
    """

    address: str  # https://host[:port][/path]
    secret: Callable[[], Secret[str]]
    clock: Clock
    form: str = "json"
    ca_file: Path | None = None
    loopback: bool = False
    seconds: float = 10.0  # for all of it

    def send(self, event_id: str, body: Mapping[str, Any]) -> None:
        """Send `body`, which has a `text` for people; raise `WebhookError`, or `RefusedError` for a bad address."""
        secret, parts = self.secret(), urlsplit(self.address)
        if self.form == "slack":
            path = "/" + secret.reveal().lstrip("/")
            content = _encoded({"text": str(body["text"])[:_LONGEST_SLACK]})
            headers = {}
        else:
            path, content = parts.path or "/", _encoded(body)
            headers = {"Broker-Event": event_id, "Broker-Signature": signature(secret, content, self.clock())}
        headers |= {"Content-Type": "application/json", "Connection": "close", "User-Agent": "credential-broker"}
        status = self._posted(parts.hostname or "", parts.port or 443, _request(parts.netloc, path, headers, content))
        if status // 100 == _REDIRECT:
            raise WebhookError(
                f"the webhook answered {status}, a redirect, which is not followed",
                hint="set notify.webhook to the final address",
            )
        if status // 100 != _SUCCESS:
            raise WebhookError(f"the webhook answered {status}", hint="its log says why: broker notify test webhook")

    def _posted(self, host: str, port: int, request: bytes) -> int:
        """Send `request` and return the status of the answer."""
        try:
            deadline = Deadline(self.seconds)
            addresses = self._checked(host, port, deadline)
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            with (
                closing(opened(addresses, deadline)) as plain,
                context.wrap_socket(plain, server_hostname=host) as server,
                answered(server, request, deadline, _LARGEST) as answer,
            ):
                return answer.status
        except FAULTS as error:
            raise WebhookError(f"the webhook cannot be reached: {_reason(error)}", hint=_HINT) from None

    def _checked(self, host: str, port: int, deadline: Deadline) -> list[Any]:
        """Return the addresses of `host`; raise `RefusedError` if one of them is not in the Internet."""
        found = resolved(host, port, deadline)
        for address in (str(each[4][0]) for each in found):
            if not (is_public(address) or (self.loopback and is_loopback(address))):
                raise RefusedError(
                    f"the webhook's host {host} has the address {address}, which is not in the Internet",
                    hint="use a public address; for one on this host, notify.webhook_loopback = true",
                )
        return found


_HINT: Final = "broker notify test webhook tries again"
_REASONS: Final[Mapping[type[Exception], str]] = {  # the first that fits
    TimeoutError: "it took too long",
    socket.gaierror: "its host name was not found",
    ConnectionRefusedError: "the connection was refused",
    ssl.SSLError: "TLS failed",
    OSError: "the connection was lost",
}


def signature(key: Secret[str], content: bytes, now: datetime) -> str:
    """Return `t=SECONDS,v1=HEX`: HMAC-SHA256 over "SECONDS." and the body, so that a recorded call grows old."""
    stamp = int(now.timestamp())
    mac = hmac.new(key.reveal().encode(), f"{stamp}.".encode() + content, hashlib.sha256)
    return f"t={stamp},v1={mac.hexdigest()}"


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _request(host: str, path: str, headers: Mapping[str, str], content: bytes) -> bytes:
    if any(c <= " " or c > "~" for c in path):
        raise InputError("the path of the webhook has a character that no URL has", hint="broker mail set webhook")
    return http_request(f"POST {path}", {"Host": host, "Content-Length": str(len(content)), **headers}, content)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    return next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), "its answer is not HTTP")
