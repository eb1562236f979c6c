"""Settings: flag > environment > file > default, each with the source of its value.

Nothing below this module reads the environment.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from broker.errors import InputError
from broker.model.duration import parse_duration
from broker.model.jwt_issuer import JwtIssuer
from broker.model.names import checked_name
from broker.model.proxy import proxy_of
from broker.model.role import Role

_LARGEST: Final = 1024 * 1024  # bytes of a configuration
_LONGEST: Final = 4000  # bytes of a path; Linux takes 4,096, and names are appended
_DIGITS: Final = 9  # of a number
_LONGEST_NAME: Final = 255  # bytes of a part of one
_PLACES: Final = (Path("broker.toml"), Path("/etc/credential-broker/broker.toml"))
_MOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}", re.ASCII)  # X.520: 64
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
AUTH_FORM: Final = "token-file:PATH, jwt-file:PATH, jwt-env:NAME or kubernetes"
KUBERNETES: Final = "jwt-file:/var/run/secrets/broker/token"  # a projected token whose audience is the broker
_ADDRESS_FORM: Final = "give http(s)://host:port or unix:///path/of/socket"
ACCOUNT_KEYS: Final = ("proxy", "proxy_login_file")
LOGIN_KEYS: Final = (
    "method",
    "mount",
    "role",
    "role_id_file",
    "secret_id_file",
    "jwt_file",
    "certificate_file",
    "key_file",
    "file",
)


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


def _pki(text: str) -> str:
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
    return f"{method}:{_path(source)}"


def _proxy(text: str) -> str:
    proxy_of(text)
    return text


def _path(text: str) -> str:
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


def _boolean(text: str) -> str:
    if text not in ("true", "false"):
        raise InputError(f"{text[:80]!r} is neither true nor false", hint="give true or false")
    return text


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting: its name in the file, the variables that set it (the first wins), default, meaning and check."""

    name: str
    variables: tuple[str, ...]
    default: str
    meaning: str
    check: Callable[[str], str] = str

    @property
    def is_path(self) -> bool:
        """Whether the value is a path."""
        return self.check == _path


def _vault(name: str, variable: str, meaning: str, check: Callable[[str], str] = str) -> Setting:
    return Setting(f"vault.{name}", (f"BAO_{variable}", f"VAULT_{variable}"), "", meaning, check)


SETTINGS: Final = (
    _vault("address", "ADDR", "http(s)://host:port, or unix:///socket; else the embedded vault", checked_address),
    _vault("namespace", "NAMESPACE", "the namespace to work in"),
    _vault("ca_file", "CACERT", "CA certificates that sign Vault's", _path),
    _vault("ca_directory", "CAPATH", "the same, as a directory", _path),
    _vault("client_certificate", "CLIENT_CERT", "the broker's certificate for mTLS to Vault", _path),
    _vault("client_key", "CLIENT_KEY", "the key of that certificate", _path),
    _vault("server_name", "TLS_SERVER_NAME", "the name in Vault's certificate, if it is not the host of the address"),
    Setting("vault.allow_http", ("BROKER_ALLOW_HTTP",), "false", "allow http:// to another host", _boolean),
    Setting("vault.mount", ("BROKER_MOUNT",), "credential-broker", "where the KV v2 engine is mounted", checked_mount),
    Setting("vault.patience", ("BROKER_TIMEOUT",), "20s", "how long to wait for Vault, retries included", _duration),
    Setting("proxy.url", ("BROKER_PROXY",), "", "forward proxy to the partners: http://host:port", _proxy),
    Setting("proxy.login_file", ("BROKER_PROXY_LOGIN_FILE",), "", "file with USER:PASSWORD for the proxy", _path),
    Setting("embedded.directory", ("BROKER_EMBEDDED",), "", "the embedded vault of a laptop: its directory", _path),
    Setting("log.level", ("BROKER_LOG_LEVEL",), "warning", "least severity to log: debug, info, warning or error"),
    Setting("log.format", ("BROKER_LOG_FORMAT",), "console", "format of log lines: json or console"),
    Setting("actor", ("BROKER_ACTOR",), "", "the name that evidence records; else user@host"),
    Setting("serve.tls_pki", ("BROKER_TLS_PKI",), "", "role of Vault's PKI for the service: MOUNT/ROLE", _pki),
    Setting("serve.tls_name", ("BROKER_TLS_NAME",), "", "host name or IP address in that certificate", _host),
    Setting("service.address", ("BROKER_ADDR",), "", "broker service to go through: https://host:port, unix:///socket"),
    Setting("service.auth", ("BROKER_AUTH",), "", f"identity for it: {AUTH_FORM}", checked_auth),
    Setting("service.ca_file", ("BROKER_CACERT",), "", "CA certificates that sign the service's", _path),
    Setting(
        "service.rate", ("BROKER_RATE",), "500", "requests a second for each consumer of a service; 0: any", _number
    ),
    Setting("bundle.ttl", ("BROKER_TTL",), "1h", "lifetime of a bundle, unless the command sets one", _duration),
    Setting("bundle.directory", ("BROKER_DIRECTORY",), "", "directory of bundles; else a memory file system", _path),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value and its source: "flag", "$VARIABLE", a file, or "default"."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, resolved. `logins` holds the login of each role; "default" serves roles without one. `issuers` are
    those whose JWTs the service accepts.
    """

    values: Mapping[str, Value]
    logins: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    file: Path | None = None
    accounts: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    issuers: Mapping[str, JwtIssuer] = field(default_factory=lambda: MappingProxyType({}))

    def __getitem__(self, name: str) -> str:
        return self.values[name].text


def resolve(
    *,
    flags: Mapping[str, str],
    environment: Mapping[str, str],
    file: Path | None,
    defaults: Mapping[str, str] | None = None,
) -> Config:
    """Return the configuration; raise `InputError` naming file, key and hint.

    `file` is the value of `--config`. Without it, `$BROKER_CONFIG`, `./broker.toml` and
    `/etc/credential-broker/broker.toml` are tried, and none is required. `defaults` replaces defaults that depend on
    the machine.
    """
    named = file or environment.get("BROKER_CONFIG")
    found = Path(named) if named else next((place for place in _PLACES if place.is_file()), None)
    content = _parsed(found) if found else {}
    sources = [
        {name: Value(text, "flag") for name, text in flags.items()},
        _from_environment(environment),
        {name: Value(text, str(found)) for name, text in (_flattened(content, found) if found else ())},
        {name: Value(text, "default") for name, text in (defaults or {}).items()},
        {setting.name: Value(setting.default, "default") for setting in SETTINGS},
    ]
    values = {s.name: _checked(s, next(source[s.name] for source in sources if s.name in source)) for s in SETTINGS}
    if found is None:
        return Config(MappingProxyType(values))
    accounts, issuers = _accounts(content, found), _issuers(content, found, values["vault.mount"].text)
    logins = MappingProxyType(_logins(content, found))
    return Config(MappingProxyType(values), logins, found, MappingProxyType(accounts), MappingProxyType(issuers))


def _parsed(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LARGEST + 1)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        hint = f"broker init --out {file} writes one" if absent else "check its owner and mode"
        raise InputError(f"cannot read {file}: {error.strerror}", hint=hint) from None
    if len(raw) > _LARGEST:
        raise InputError(f"{file} has more than {_LARGEST} bytes", hint="is this the right file?")
    try:
        content = tomllib.loads(raw.decode("utf-8"))
    except ValueError as error:  # of TOML, of UTF-8, or of Python for a number with thousands of digits
        raise InputError(f"{file} is not TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{file} is not TOML that can be read: it is nested too deeply") from None
    if content.get("version") != 1 or content["version"] is True:
        raise InputError(f"{file}: version is missing or not 1", hint='begin the file with "version = 1"')
    return content


def _flattened(content: Mapping[str, Any], file: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name in ("version", "roles", "login", "accounts", "issuers"):
            continue
        if isinstance(value, dict) and any(known.startswith(f"{name}.") for known in _BY_NAME):
            yield from _flattened(value, file, f"{name}.")
            continue
        _require_known(file, name, _BY_NAME)
        if isinstance(value, bool) and _BY_NAME[name].check == _boolean:
            value = str(value).lower()  # noqa: PLW2901  # TOML has a word of its own for it
        if not isinstance(value, str):
            raise InputError(f"{file}: {name} must be text", hint=f'{key} = "…"')
        yield name, _anchored(value, file) if _BY_NAME[name].is_path else _anchored_auth(name, value, file)


def _logins(content: Mapping[str, Any], file: Path) -> dict[str, Mapping[str, str]]:
    roles = content.get("roles", {})
    if not isinstance(roles, dict):
        raise InputError(f"{file}: roles must be tables", hint="one for each role: [roles.auditor]")
    for role in roles:
        _require_known(file, f"roles.{role}", [f"roles.{known.value}" for known in Role])
    found = {role: _texts(table, f"roles.{role}", LOGIN_KEYS, file) for role, table in roles.items()}
    return found | ({"default": _texts(content["login"], "login", LOGIN_KEYS, file)} if "login" in content else {})


def _accounts(content: Mapping[str, Any], file: Path) -> dict[str, Mapping[str, str]]:
    tables = content.get("accounts", {})
    if not isinstance(tables, dict):
        raise InputError(f"{file}: accounts must be tables", hint="one for each account: [accounts.acme]")
    return {name: _texts(table, f"accounts.{name}", ACCOUNT_KEYS, file) for name, table in tables.items()}


def _texts(table: Any, where: str, keys: tuple[str, ...], file: Path) -> Mapping[str, str]:
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise InputError(f"{file}: [{where}] must be a table of texts", hint=f"it takes {', '.join(keys)}")
    for key, value in table.items():
        _require_known(file, f"{where}.{key}", [f"{where}.{k}" for k in keys])
        check = _proxy if key == "proxy" else _path
        _checked(Setting(f"{where}.{key}", (), "", "", check), Value(value, str(file)))
    return MappingProxyType({k: _anchored(v, file) if k.endswith("file") else v for k, v in table.items()})


def _issuers(content: Mapping[str, Any], file: Path, mount: str) -> dict[str, JwtIssuer]:
    tables = content.get("issuers", {})
    if not isinstance(tables, dict):
        raise InputError(f"{file}: issuers must be tables", hint="one for each issuer: [issuers.ci]")
    found = {name: _issuer(name, table, file, mount) for name, table in tables.items()}
    for key in ("issuer", "mount"):
        if len({getattr(issuer, key) for issuer in found.values()}) < len(found):
            raise InputError(f"{file}: two of [issuers] have the same {key}", hint="use one mount for an issuer")
    return found


def _issuer(name: str, table: Any, file: Path, mount: str) -> JwtIssuer:
    texts = _texts(table, f"issuers.{name}", tuple(f.name for f in fields(JwtIssuer)), file)
    try:
        checked_name(name, "issuer")
        issuer = JwtIssuer(**texts)
        return replace(issuer, mount=checked_mount(issuer.mount or f"{mount}-jwt/{name}"))
    except InputError as error:
        raise InputError(f"{file}: [issuers.{name}]: {error.message}", hint=error.hint) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    set_ = [(s.name, v) for s in SETTINGS for v in reversed(s.variables) if environment.get(v)]  # the first wins
    return {name: Value(environment[variable], f"${variable}") for name, variable in set_}


def _checked(setting: Setting, value: Value) -> Value:
    where = f"{setting.name} ({value.source})"
    if not value.text.isprintable():
        raise InputError(f"{where} contains a control character", hint="use a single line of text")
    try:
        return value if value.text == setting.default else Value(setting.check(value.text), value.source)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", hint=error.hint) from None


def _anchored(path: str, file: Path) -> str:
    """Return a path in the file as an absolute path: relative ones start at the file's directory."""
    return str(file.parent.absolute() / os.path.expanduser(path)) if path else path  # noqa: PTH111  # raises for no "~x"


def _anchored_auth(name: str, value: str, file: Path) -> str:
    method, _, path = value.partition(":") if name == "service.auth" else ("", "", "")
    return f"{method}:{_anchored(path, file)}" if method.endswith("-file") else value


def _require_known(file: Path, name: str, known: Collection[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else "broker config show lists all settings"
        raise InputError(f"{file}: there is no setting {name}", hint=hint)
