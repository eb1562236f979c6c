"""Every setting: its name, variables, default and meaning, and the check of its value. `config` reads them."""

import os
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from broker.errors import InputError
from broker.model.duration import parse_duration
from broker.model.names import mail_address
from broker.model.proxy import proxy_of

_LONGEST: Final = 4000  # bytes of a path; Linux takes 4,096, and names are appended
_DIGITS: Final = 9  # of a number
_LAST_PORT: Final = 65535
_LONGEST_NAME: Final = 255  # bytes of a part of one
_MOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}", re.ASCII)  # X.520: 64
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
TLS_MODES: Final = ("starttls", "tls", "none")
AUTHS: Final = ("password", "xoauth2", "oauthbearer")
SMTP: Final = "smtp"  # names of tables of [mail], and of their secrets in Vault
IMAP: Final = "imap"
OAUTH: Final = "oauth"
AUTH_FORM: Final = "token-file:PATH, jwt-file:PATH, jwt-env:NAME or kubernetes"
KUBERNETES: Final = "jwt-file:/var/run/secrets/broker/token"  # a projected token whose audience is the broker
_ADDRESS_FORM: Final = "give http(s)://host:port or unix:///path/of/socket"


def checked_address(text: str) -> str:
    """Return an address of Vault, without a slash at the end; raise `InputError`.

    An address with a user or a query is refused, and not shown: settings are shown, and either may be a secret.
    """
    if not text.startswith("unix:///") and any(mark in text for mark in "@?#"):
        raise InputError(
            "the address of Vault carries more than host, port and path", hint="remove user, query and fragment"
        )
    try:
        parts = urlsplit(text)
        usable = parts.port != 0 and bool(parts.path if parts.scheme == "unix" else parts.hostname)
    except ValueError:  # an incomplete IPv6 address, or an invalid port
        usable = False
    if not usable or parts.scheme not in ("http", "https", "unix"):
        hint = _ADDRESS_FORM if "://" in text else f"put http:// or https:// in front: {_ADDRESS_FORM}"
        raise InputError(f"{text[:80]!r} is not an address of Vault", hint=hint)
    if parts.path.rstrip("/").endswith("/v1") and parts.scheme != "unix":
        raise InputError(f"{text[:80]!r} must not end in /v1", hint="remove /v1: the broker adds it")
    return text.rstrip("/")


def checked_mount(text: str) -> str:
    """Return the path of a mount; raise `InputError` for one that would mean something else in a policy or a URL."""
    if not _MOUNT.fullmatch(text):
        raise InputError(f"{text[:80]!r} is not a mount of Vault", hint="use letters, digits, '-', '_', '.' and '/'")
    return text


def checked_pki(text: str) -> str:
    """Return MOUNT/ROLE of a PKI engine; raise `InputError` for anything else."""
    if "/" not in checked_mount(text):
        raise InputError(f"{text[:80]!r} lacks the role", hint="use MOUNT/ROLE, such as pki/broker")
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise InputError(f"{text[:80]!r} is not a host name or an IP address", hint="use broker.example, for example")
    return text


def checked_auth(text: str) -> str:
    """Return the identity for the service, "kubernetes" as its file. An error does not quote it: it may be a token."""
    method, _, source = text.partition(":")
    if method in ("approle", "cert"):
        raise InputError(
            f"{method} is a login at Vault; the service takes a token of Vault or a JWT", hint=f"use {AUTH_FORM}"
        )
    if text == "kubernetes":
        return KUBERNETES
    named = _VARIABLE.fullmatch(source) if method == "jwt-env" else method in ("token-file", "jwt-file") and source
    if not named:
        raise InputError("this names no identity for the service", hint=f"use {AUTH_FORM}")
    return f"{method}:{path_text(source)}"


def checked_proxy(text: str) -> str:
    """Return the address of a proxy; raise `InputError`."""
    proxy_of(text)
    return text


def path_text(text: str) -> str:
    """Return a path; raise `InputError` for one that Linux does not take."""
    if len(os.fsencode(text)) > _LONGEST or any(len(os.fsencode(part)) > _LONGEST_NAME for part in text.split("/")):
        raise InputError("too long for a path", hint="use a shorter path")
    return text


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _number(text: str) -> str:
    if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS:
        raise InputError(f"{text[:80]!r} is not a number", hint="give a whole number, such as 500")
    return text


def _port(text: str) -> str:
    if not 0 < int(_number(text)) <= _LAST_PORT:
        raise InputError(f"{text[:80]!r} is not a port", hint=f"give a number from 1 to {_LAST_PORT}")
    return text


def _token_url(text: str) -> str:
    if not text.startswith("https://") and not text.startswith("http://127.0.0.1:"):
        raise InputError("the token endpoint does not begin with https://", hint="use https://HOST/PATH")
    if not text.isascii() or any(mark in text for mark in " @#"):
        raise InputError("the token endpoint has a user, a fragment or a blank", hint="use https://HOST/PATH")
    return text


def _webhook(text: str) -> str:
    """Return the address of a webhook. It is shown by `config show`, so it may hold no secret."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and text.isascii()
    except ValueError:  # an incomplete IPv6 address, or an invalid port
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc or " " in text:
        message = "the address of the webhook is not https://HOST[:PORT][/PATH]"
        raise InputError(message, hint="https on loopback too; no user, query or fragment: settings are shown")
    return text


def _of(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in words:
            raise InputError(f"{text[:80]!r} is not one of {', '.join(words)}", hint=f"use {words[0]}, for example")
        return text

    return check


def _command(text: str) -> str:
    return text


def _boolean(text: str) -> str:
    if text not in ("true", "false"):
        raise InputError(f"{text[:80]!r} is neither true nor false", hint="give true or false")
    return text


class Setting(Struct, frozen=True):
    """A setting: its name in the file, the variables that set it (the first wins), default, meaning and check."""

    name: str
    variables: tuple[str, ...]
    default: str
    meaning: str
    check: Callable[[str], str] = str

    @property
    def is_path(self) -> bool:
        """Whether the value is a path."""
        return self.check == path_text

    @property
    def is_boolean(self) -> bool:
        """Whether the value is true or false."""
        return self.check == _boolean

    @property
    def is_command(self) -> bool:
        """Whether the value is a program with its arguments: a list in the file, one text here."""
        return self.check == _command


def _vault(name: str, variable: str, meaning: str, check: Callable[[str], str] = str) -> Setting:
    return Setting(f"vault.{name}", (f"BAO_{variable}", f"VAULT_{variable}"), "", meaning, check)


def _mail(name: str, default: str, meaning: str, check: Callable[[str], str] = str) -> Setting:
    return Setting(f"mail.{name}", (), default, meaning, check)


def _mail_server(kind: str, port: str, tls: str) -> tuple[Setting, ...]:
    return (
        _mail(f"{kind}.host", "", f"host name of the {kind.upper()} server", _host),
        _mail(f"{kind}.port", port, "its port", _port),
        _mail(f"{kind}.tls", tls, "starttls, or tls from the first byte; none is for loopback only", _of(*TLS_MODES)),
        _mail(f"{kind}.user", "", "user name; without one there is no login"),
        _mail(f"{kind}.auth", "password", "password, or a token of [mail.oauth]: xoauth2, oauthbearer", _of(*AUTHS)),
        _mail(f"{kind}.ca_file", "", "CA certificates that sign the server's; else those of this machine", path_text),
    )


_HOOKS: Final = (
    ("promoted", "another generation is current"),
    ("submitted", "a CSR was sent to the partner"),
    ("retired", "an old generation is retired"),
    ("failure", "a step of the scheduler failed"),
)
SETTINGS: Final = (
    _vault("address", "ADDR", "http(s)://host:port, or unix:///socket; else the embedded vault", checked_address),
    _vault("namespace", "NAMESPACE", "the namespace to work in"),
    _vault("ca_file", "CACERT", "CA certificates that sign Vault's", path_text),
    _vault("ca_directory", "CAPATH", "the same, as a directory", path_text),
    _vault("client_certificate", "CLIENT_CERT", "the broker's certificate for mTLS to Vault", path_text),
    _vault("client_key", "CLIENT_KEY", "the key of that certificate", path_text),
    _vault("server_name", "TLS_SERVER_NAME", "the name in Vault's certificate, if it is not the host of the address"),
    Setting("vault.allow_http", ("BROKER_ALLOW_HTTP",), "false", "allow http:// to another host", _boolean),
    Setting("vault.mount", ("BROKER_MOUNT",), "credential-broker", "where the KV v2 engine is mounted", checked_mount),
    Setting("vault.patience", ("BROKER_TIMEOUT",), "20s", "how long to wait for Vault, retries included", _duration),
    Setting("proxy.url", ("BROKER_PROXY",), "", "forward proxy to the partners: http://host:port", checked_proxy),
    Setting("proxy.login_file", ("BROKER_PROXY_LOGIN_FILE",), "", "file with USER:PASSWORD for the proxy", path_text),
    Setting("embedded.directory", ("BROKER_EMBEDDED",), "", "the embedded vault of a laptop: its directory", path_text),
    Setting("log.level", ("BROKER_LOG_LEVEL",), "warning", "least severity to log: debug, info, warning or error"),
    Setting("log.format", ("BROKER_LOG_FORMAT",), "console", "format of log lines: json or console"),
    Setting("actor", ("BROKER_ACTOR",), "", "the name that evidence records; else user@host"),
    Setting("serve.tls_pki", ("BROKER_TLS_PKI",), "", "role of Vault's PKI for the service: MOUNT/ROLE", checked_pki),
    Setting("serve.tls_name", ("BROKER_TLS_NAME",), "", "host name or IP address in that certificate", _host),
    Setting("service.address", ("BROKER_ADDR",), "", "broker service to go through: https://host:port, unix:///socket"),
    Setting("service.auth", ("BROKER_AUTH",), "", f"identity for it: {AUTH_FORM}", checked_auth),
    Setting("service.ca_file", ("BROKER_CACERT",), "", "CA certificates that sign the service's", path_text),
    Setting(
        "service.rate", ("BROKER_RATE",), "500", "requests a second for each consumer of a service; 0: any", _number
    ),
    Setting("rotation.interval", ("BROKER_INTERVAL",), "5m", "time between two sweeps of the scheduler", _duration),
    Setting("bundle.ttl", ("BROKER_TTL",), "1h", "lifetime of a bundle, unless the command sets one", _duration),
    Setting(
        "bundle.directory", ("BROKER_DIRECTORY",), "", "directory of bundles; else a memory file system", path_text
    ),
    Setting("agent.listen", (), "", "loopback address of the agent's health: 127.0.0.1:PORT"),
    Setting("agent.socket", (), "", "unix socket of the same, for its user; it also takes POST /quit", path_text),
    *_mail_server("smtp", "587", "starttls"),
    _mail("smtp.from", "", "address that the broker's mails come from", mail_address),
    *_mail_server("imap", "993", "tls"),
    _mail("imap.folder", "INBOX", "folder that replies arrive in; it is only read"),
    _mail("imap.move_to", "", "folder to move mails to that are about an account; else nothing is moved"),
    Setting("replies.folder", (), "", "folder that people put replies into; the broker empties it", path_text),
    _mail("oauth.token_url", "", "token endpoint for the client credentials of client_id", _token_url),
    _mail("oauth.client_id", "", "client_id at the token endpoint; its secret: broker mail set oauth"),
    _mail("oauth.scope", "", "scope of the token"),
    _mail("oauth.ca_file", "", "CA certificates that sign the token endpoint's", path_text),
    _mail("oauth.token_command", "", "list of arguments: a program that prints a token, run without a shell", _command),
    Setting("notify.webhook", (), "", "address that gets notices: https://HOST[:PORT][/PATH]", _webhook),
    Setting(
        "notify.webhook_form", (), "json", "json, signed; or slack, whose path is the secret", _of("json", "slack")
    ),
    Setting("notify.webhook_ca_file", (), "", "CA certificates that sign the webhook's", path_text),
    Setting("notify.webhook_loopback", (), "false", "allow a webhook on this host", _boolean),
    *(
        Setting(f"hooks.on_{event}", (), "", f"list of arguments: run after {meaning}", _command)
        for event, meaning in _HOOKS
    ),
    Setting("hooks.timeout", (), "60s", "how long a hook may run before it is killed", _duration),
)
