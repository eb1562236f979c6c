"""Settings: flag > environment > file > default, and which one won. Nothing below here reads the environment."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from broker.errors import InputError
from broker.model.duration import parse_duration
from broker.model.role import Role

__all__ = ["LOGIN_KEYS", "SETTINGS", "Config", "Setting", "Value", "resolve"]

_LARGEST: Final = 1024 * 1024  # bytes of a configuration
_LONGEST: Final = 4000  # bytes of a path; Linux takes 4,096, and names are appended
_LONGEST_NAME: Final = 255  # bytes of a part of one
LOGIN_KEYS: Final = ("method", "mount", "role_id_file", "secret_id_file", "file")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in the file, the variables that set it (the first wins), default and meaning."""

    name: str
    variables: tuple[str, ...]
    default: str
    meaning: str
    is_path: bool = False
    is_duration: bool = False


def _vault(name: str, variable: str, meaning: str, *, is_path: bool = False) -> Setting:
    return Setting(f"vault.{name}", (f"BAO_{variable}", f"VAULT_{variable}"), "", meaning, is_path=is_path)


SETTINGS: Final = (
    _vault("address", "ADDR", "http(s)://host:port, or unix:///socket; else the embedded vault"),
    _vault("namespace", "NAMESPACE", "the namespace to work in"),
    _vault("ca_file", "CACERT", "CA certificates that sign Vault's", is_path=True),
    _vault("ca_directory", "CAPATH", "the same, as a directory", is_path=True),
    _vault("client_certificate", "CLIENT_CERT", "our certificate for mTLS to Vault", is_path=True),
    _vault("client_key", "CLIENT_KEY", "and its key", is_path=True),
    _vault("server_name", "TLS_SERVER_NAME", "the name that Vault's certificate carries"),
    Setting("vault.mount", ("BROKER_MOUNT",), "credential-broker", "where the KV v2 engine is mounted"),
    Setting("vault.patience", ("BROKER_TIMEOUT",), "20s", "how long to wait for Vault in all", is_duration=True),
    Setting(
        "embedded.directory", ("BROKER_EMBEDDED",), "", "the embedded vault of a laptop: its directory", is_path=True
    ),
    Setting("actor", ("BROKER_ACTOR",), "", "who is named in the evidence; else user@host"),
    Setting("bundle.ttl", ("BROKER_TTL",), "1h", "how long a bundle lasts unless asked otherwise", is_duration=True),
    Setting("bundle.directory", ("BROKER_DIRECTORY",), "", "where bundles go; else a memory file system", is_path=True),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value and where it comes from: "--flag", "$VARIABLE", a file, or "default"."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, resolved. `logins` holds how each role logs in; "default" serves those not named."""

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

    `file` is what `--config` named; else `$BROKER_CONFIG`, `./broker.toml` and `/etc/credential-broker/broker.toml`
    are looked for, and none need be there. `defaults` replaces defaults that depend on the machine.
    """
    found = file or _looked_up(environment)
    content = _parsed(found) if found else {}
    listed = dict(_flattened(content, found)) if found else {}
    values = {
        setting.name: _won(setting, flags, environment, listed, str(found), defaults or {}) for setting in SETTINGS
    }
    for name, value in values.items():
        if value.text and _BY_NAME[name].is_duration:
            _checked_duration(name, value)
        if not value.text.isprintable():
            raise InputError(f"{name} ({value.source}) holds a control character", hint="one line, please")
        if _BY_NAME[name].is_path and _is_too_long(value.text):
            raise InputError(f"{name} ({value.source}) is too long for a path", hint="is this the right value?")
        if name == "vault.address" and _may_hold_a_secret(value.text):
            raise InputError(
                f"the address of Vault ({value.source}) carries more than host, port and path",
                hint="strip user and query",
            )
    return Config(MappingProxyType(values), _logins(content, found), found)


def _looked_up(environment: Mapping[str, str]) -> Path | None:
    if environment.get("BROKER_CONFIG"):
        return Path(environment["BROKER_CONFIG"])
    places = (Path("broker.toml"), Path("/etc/credential-broker/broker.toml"))
    return next((place for place in places if place.is_file()), None)


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
    except ValueError as error:  # TOML's, UTF-8's, and Python's own for a number of thousands of digits
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
        elif name not in _BY_NAME:
            raise _unknown(file, name, _BY_NAME)
        elif not isinstance(value, str):
            raise InputError(f"{file}: {name} must be text", hint=f'{key} = "…"')
        else:
            yield name, _anchored(value, file) if _BY_NAME[name].is_path else value


def _logins(content: Mapping[str, Any], file: Path | None) -> Mapping[str, Mapping[str, str]]:
    tables: dict[str, Any] = {}
    roles = content.get("roles", {})
    if file is None:
        return MappingProxyType({})
    if not isinstance(roles, dict):
        raise InputError(f"{file}: roles must be tables", hint="one for each role: [roles.auditor]")
    known = [role.value for role in Role]
    for role in roles:
        if role not in known:
            raise _unknown(file, f"roles.{role}", [f"roles.{name}" for name in known])
        tables[role] = roles[role]
    if "login" in content:
        tables["default"] = content["login"]
    return MappingProxyType({role: _login(table, role, file) for role, table in tables.items()})


def _login(table: Any, role: str, file: Path) -> Mapping[str, str]:
    where = "login" if role == "default" else f"roles.{role}"
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise InputError(f"{file}: [{where}] must be a table of texts", hint=f"it takes {', '.join(LOGIN_KEYS)}")
    for key, value in table.items():
        if key not in LOGIN_KEYS:
            raise _unknown(file, f"{where}.{key}", [f"{where}.{k}" for k in LOGIN_KEYS])
        if not value.isprintable() or _is_too_long(value):
            raise InputError(f"{file}: {where}.{key} cannot be what is meant", hint="one line, and no long one, please")
    return MappingProxyType({k: _anchored(v, file) if k.endswith("file") else v for k, v in table.items()})


def _won(
    setting: Setting,
    flags: Mapping[str, str],
    environment: Mapping[str, str],
    listed: Mapping[str, str],
    file: str,
    defaults: Mapping[str, str],
) -> Value:
    if setting.name in flags:
        return Value(flags[setting.name], "flag")
    for variable in setting.variables:
        if environment.get(variable):
            return Value(environment[variable], f"${variable}")
    if setting.name in listed:
        return Value(listed[setting.name], file)
    return Value(defaults.get(setting.name, setting.default), "default")


def _checked_duration(name: str, value: Value) -> None:
    try:
        parse_duration(value.text)
    except InputError as error:
        raise InputError(f"{name} ({value.source}): {error.message}", hint=error.hint) from None


def _is_too_long(path: str) -> bool:
    return len(os.fsencode(path)) > _LONGEST or any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.split("/"))


def _may_hold_a_secret(address: str) -> bool:
    """Whether an address has a user or a query: settings are shown, and either may be a password or a token."""
    return not address.startswith("unix:///") and any(mark in address for mark in "@?#")


def _anchored(path: str, file: Path) -> str:
    """Return a path of the file's, relative to the directory that the file lies in."""
    return str(file.parent.absolute() / os.path.expanduser(path)) if path else path  # noqa: PTH111  # raises for no "~x"


def _unknown(file: Path, name: str, known: Any) -> InputError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "broker config show lists all settings"
    return InputError(f"{file}: there is no setting {name}", hint=hint)
