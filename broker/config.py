"""Settings: flag > environment > file > default, each with the source of its value.

Nothing below this module reads the environment.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from broker.copies import replace
from broker.errors import InputError
from broker.model.names import NAME, checked_name, guess
from broker.model.role import Role
from broker.settings import SETTINGS, Setting, checked_mount, checked_pki, checked_proxy, path_text

if TYPE_CHECKING:
    from broker.model.jwt_issuer import JwtIssuer

_LARGEST: Final = 1024 * 1024  # bytes of a configuration
_PLACES: Final = (Path("broker.toml"), Path("/etc/credential-broker/broker.toml"))
ACCOUNT_KEYS: Final = ("pki", "proxy", "proxy_login_file")
WINDOW_KEYS: Final = ("cron", "timezone", "duration")
FREEZE_KEYS: Final = ("from", "until", "timezone", "reason")
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


_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


class Value(Struct, frozen=True):
    """A setting's value and its source: "flag", "$VARIABLE", a file, or "default"."""

    text: str
    source: str


class Config(Struct, frozen=True):
    """All settings, resolved. `logins` holds the login of each role; "default" serves roles without one. `issuers` are
    those whose JWTs the service accepts. `windows` and `freezes` bind the scheduler. `bundles` are the agent's,
    as they are written.
    """

    values: Mapping[str, Value]
    logins: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    file: Path | None = None
    accounts: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    issuers: Mapping[str, JwtIssuer] = field(default_factory=lambda: MappingProxyType({}))
    windows: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    freezes: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    bundles: tuple[Mapping[str, Any], ...] = ()

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
    return Config(
        MappingProxyType(values),
        logins,
        found,
        MappingProxyType(accounts),
        MappingProxyType(issuers),
        MappingProxyType(_named_tables(content, "windows", WINDOW_KEYS, found)),
        MappingProxyType(_named_tables(content, "freezes", FREEZE_KEYS, found)),
        _bundles(content, found),
    )


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
    import tomllib  # only with a file: start-up counts

    try:
        content = tomllib.loads(raw.decode("utf-8-sig"))  # editors of Windows write a byte order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file} is not UTF-8 text (line {line})", hint="save it as UTF-8") from None
    except ValueError as error:  # of TOML, or of Python for a number with thousands of digits
        raise InputError(f"{file} is not TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{file} is not TOML that can be read: it is nested too deeply") from None
    if content.get("version") != 1 or content["version"] is True:
        raise InputError(f"{file}: version is missing or not 1", hint='begin the file with "version = 1"')
    return content


def _flattened(content: Mapping[str, Any], file: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name in (
            "version",
            "roles",
            "login",
            "accounts",
            "issuers",
            "rotation.windows",
            "rotation.freezes",
            "bundles",
        ):
            continue
        if isinstance(value, dict) and any(known.startswith(f"{name}.") for known in (*_BY_NAME, "rotation.windows")):
            yield from _flattened(value, file, f"{name}.")
            continue
        _require_known(file, name, _BY_NAME)
        if isinstance(value, bool) and _BY_NAME[name].is_boolean:
            value = str(value).lower()  # noqa: PLW2901  # TOML has a word of its own for it
        if _BY_NAME[name].is_command:
            value = _joined(name, value, file)  # noqa: PLW2901
        if not isinstance(value, str):
            raise InputError(f"{file}: {name} must be text", hint=f'{key} = "…"')
        yield name, _anchored(value, file) if _BY_NAME[name].is_path else _anchored_auth(name, value, file)


def _joined(name: str, value: Any, file: Path) -> str:
    """Return the list of arguments as text, which `shlex.split` reads."""
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise InputError(f"{file}: {name} must be a list of texts", hint='such as ["/usr/local/bin/token", "--mail"]')
    return shlex.join(value)


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


def _named_tables(
    content: Mapping[str, Any], kind: str, keys: tuple[str, ...], file: Path
) -> dict[str, Mapping[str, str]]:
    """Return the tables [rotation.KIND.NAME]. A date may be written without quotation marks."""
    rotation = content.get("rotation", {})
    tables = rotation.get(kind, {}) if isinstance(rotation, dict) else {}
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InputError(f"{file}: rotation.{kind} must be tables", hint=f"such as [rotation.{kind}.NAME]")
    found: dict[str, Mapping[str, str]] = {}
    for name, table in tables.items():
        if not NAME.fullmatch(name):
            raise InputError(f"{file}: {name[:80]!r} in rotation.{kind} is not a name", hint="use a-z, 0-9 and '-'")
        plain = {key: str(value) if isinstance(value, date) else value for key, value in table.items()}
        found[name] = _texts(plain, f"rotation.{kind}.{name}", keys, file)
    return found


def _bundles(content: Mapping[str, Any], file: Path) -> tuple[Mapping[str, Any], ...]:
    tables = content.get("bundles", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{file}: bundles must be tables", hint="write [[bundles]], once for each")
    return tuple(tables)


def _texts(table: Any, where: str, keys: tuple[str, ...], file: Path) -> Mapping[str, str]:
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise InputError(f"{file}: [{where}] must be a table of texts", hint=f"it takes {', '.join(keys)}")
    for key, value in table.items():
        _require_known(file, f"{where}.{key}", [f"{where}.{k}" for k in keys])
        check = {"pki": checked_pki, "proxy": checked_proxy}.get(key, path_text)
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
    from broker.model.jwt_issuer import JwtIssuer  # only here: start-up counts

    texts = _texts(table, f"issuers.{name}", JwtIssuer.__struct_fields__, file)
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
        hint = guess(name, known).strip() or "broker config show lists all settings"
        raise InputError(f"{file}: there is no setting {name}", hint=hint)
