"""Access tokens for mail servers: from a token endpoint (client credentials), or from a program of this host."""

import http.client
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from broker import child
from broker.errors import InputError, MailUnavailableError
from broker.model.secret import Secret
from broker.network import FAULTS, Deadline, answered, connected, http_request, is_loopback
from broker.people.login import WrongLoginError
from broker.people.server import MailTlsError, unreachable, verifying
from broker.typed import json_object

LIMIT: Final = 30.0  # seconds for one token
_LARGEST: Final = 64 * 1024  # bytes of an answer
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, section 2.1
_CODE: Final = re.compile(r"[a-z_]{1,40}", re.ASCII)
_HTTPS: Final = 443
_OURS: Final = 500  # statuses from here on, and 429, are not about the request
_BUSY: Final = 429


class TokenEndpoint(Struct, frozen=True):
    """A token endpoint, and the client that asks it. Source: RFC 6749, sections 4.4 and 5."""

    url: str
    client_id: str
    client_secret: Secret[str]
    scope: str = ""
    ca_file: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not parts.hostname or (parts.scheme != "https" and not is_loopback(parts.hostname)):
            raise InputError("the token endpoint would get the client's secret unencrypted", hint="use https://")

    def token(self) -> Secret[str]:
        """Return a new token; raise `WrongLoginError` or `MailUnavailableError`. No redirect is followed."""
        form = {"grant_type": "client_credentials", "client_id": self.client_id}
        form |= {"client_secret": self.client_secret.reveal()} | ({"scope": self.scope} if self.scope else {})
        try:
            status, body = self._posted(urlencode(form).encode("ascii"), Deadline(LIMIT))
        except ssl.SSLCertVerificationError as error:
            message = f"{self} cannot be verified: {error.verify_message}; nothing was sent"
            raise MailTlsError(message, hint="check token_url and ca_file under [mail.oauth]") from None
        except FAULTS as error:
            raise unreachable(self, error) from None
        answer = json_object(body) or {}
        if status == http.client.OK:
            return _checked(answer.get("access_token"), str(self))
        if status >= _OURS or status == _BUSY:
            raise MailUnavailableError(f"{self} answered {status}", hint="broker mail test tries it again")
        code = answer.get("error")
        reason = code if isinstance(code, str) and _CODE.fullmatch(code) else f"it answered {status}"
        raise WrongLoginError(
            f"{self} gives client {self.client_id} no token: {reason}",
            hint="check client_id and scope under [mail.oauth]; broker mail set oauth stores another secret",
        )

    def _posted(self, form: bytes, deadline: Deadline) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or (_HTTPS if parts.scheme == "https" else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {
            "Host": parts.netloc,
            "Accept": "application/json",
            "Connection": "close",
            "Content-Type": "application/x-www-form-urlencoded",
            "Content-Length": str(len(form)),
        }
        channel = connected(host, port, deadline)
        try:
            if parts.scheme == "https":
                channel = verifying(self.ca_file, "mail.oauth.ca_file").wrap_socket(channel, server_hostname=host)
            with answered(channel, http_request(f"POST {target}", headers, form), deadline, _LARGEST) as answer:
                return answer.status, answer.read()
        finally:
            channel.close()

    def __str__(self) -> str:
        return f"the token endpoint {urlsplit(self.url).hostname}"


class TokenCommand(Struct, frozen=True):
    """A program of this host that prints a token. It gets no input, and `environment` alone."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    limit: float = LIMIT  # seconds

    def token(self) -> Secret[str]:
        """Return what the program prints; raise `InputError`, `RefusedError`, or what `_checked` raises."""
        printed = child.output(self.arguments, self.environment, self.limit, "[mail.oauth]")
        return _checked(printed.reveal().decode("ascii", "replace").strip(), "token_command")


def _checked(token: object, source: str) -> Secret[str]:
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise MailUnavailableError(f"{source} gave nothing that is a token", hint="broker mail test tries it again")
    return Secret(token)
