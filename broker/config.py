"""Settings: flag > environment > file > default, each with the source of its value.

Nothing below this module reads the environment.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from broker.errors import InputError
from broker.model.duration import parse_duration
from broker.model.role import Role

_LARGEST: Final = 1024 * 1024  # bytes of a configuration
_LONGEST: Final = 4000  # bytes of a path; Linux takes 4,096, and names are appended
_LONGEST_NAME: Final = 255  # bytes of a part of one
_PLACES: Final = (Path("broker.toml"), Path("/etc/credential-broker/broker.toml"))
_MOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*", re.ASCII)
_ADDRESS_FORM: Final = "give http(s)://host:port or unix:///path/of/socket"
LOGIN_KEYS: Final = ("method", "mount", "role_id_file", "secret_id_file", "file")


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


def _path(text: str) -> str:
    if len(os.fsencode(text)) > _LONGEST or any(len(os.fsencode(part)) > _LONGEST_NAME for part in text.split("/")):
        raise InputError("too long for a path", hint="use a shorter path")
    return text


def _duration(text: str) -> str:
    parse_duration(text)
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
    Setting("vault.mount", ("BROKER_MOUNT",), "credential-broker", "where the KV v2 engine is mounted", checked_mount),
    Setting("vault.patience", ("BROKER_TIMEOUT",), "20s", "how long to wait for Vault, retries included", _duration),
    Setting("embedded.directory", ("BROKER_EMBEDDED",), "", "the embedded vault of a laptop: its directory", _path),
    Setting("log.level", ("BROKER_LOG_LEVEL",), "warning", "least severity to log: debug, info, warning or error"),
    Setting("log.format", ("BROKER_LOG_FORMAT",), "console", "format of log lines: json or console"),
    Setting("actor", ("BROKER_ACTOR",), "", "the name that evidence records; else user@host"),
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
    """All settings, resolved. `logins` holds the login of each role; "default" serves roles without one."""

    values: Mapping[str, Value]
    logins: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    file: Path | None = None

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
    return Config(MappingProxyType(values), MappingProxyType(_logins(content, found) if found else {}), found)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}", hint="broker init writes one") from None
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
        if name in ("version", "roles", "login"):
            continue
        if isinstance(value, dict) and any(known.startswith(f"{name}.") for known in _BY_NAME):
            yield from _flattened(value, file, f"{name}.")
            continue
        _require_known(file, name, _BY_NAME)
        if not isinstance(value, str):
            raise InputError(f"{file}: {name} must be text", hint=f'{key} = "…"')
        yield name, _anchored(value, file) if _BY_NAME[name].is_path else value


def _logins(content: Mapping[str, Any], file: Path) -> dict[str, Mapping[str, str]]:
    roles = content.get("roles", {})
    if not isinstance(roles, dict):
        raise InputError(f"{file}: roles must be tables", hint="one for each role: [roles.auditor]")
    for role in roles:
        _require_known(file, f"roles.{role}", [f"roles.{known.value}" for known in Role])
    found = {role: _login(table, f"roles.{role}", file) for role, table in roles.items()}
    return found | ({"default": _login(content["login"], "login", file)} if "login" in content else {})


def _login(table: Any, where: str, file: Path) -> Mapping[str, str]:
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise InputError(f"{file}: [{where}] must be a table of texts", hint=f"it takes {', '.join(LOGIN_KEYS)}")
    for key, value in table.items():
        _require_known(file, f"{where}.{key}", [f"{where}.{k}" for k in LOGIN_KEYS])
        _checked(Setting(f"{where}.{key}", (), "", "", _path), Value(value, str(file)))
    return MappingProxyType({k: _anchored(v, file) if k.endswith("file") else v for k, v in table.items()})


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


def _require_known(file: Path, name: str, known: Collection[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else "broker config show lists all settings"
        raise InputError(f"{file}: there is no setting {name}", hint=hint)
