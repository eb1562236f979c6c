"""The tables `[[bundles]]` of broker.toml: each bundle of the agent, with its directory, copies and hooks."""

import os
import pwd
import re
import signal
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from grp import getgrnam
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from broker.agent.files import Copy
from broker.delivery.formats import FileFormat
from broker.delivery.root import default_root
from broker.errors import BrokerError, InputError
from broker.model.bundle import Wanted
from broker.model.duration import parse_duration
from broker.model.lease import LONGEST
from broker.model.names import account_name, checked_name
from broker.typed import typed

_SECRET: Final = frozenset(FileFormat) - {
    FileFormat.CERTIFICATE, FileFormat.TRUST, FileFormat.USERNAME, FileFormat.CLIENT_ID, FileFormat.TRUSTSTORE
}  # fmt: skip
_MODE: Final = re.compile(r"0?[0-7]{3}", re.ASCII)
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.@][A-Za-z0-9:_.@\\-]{0,200}", re.ASCII)
_OTHERS_WRITE, _OTHERS = 0o022, 0o007
_SHORTEST: Final = timedelta(seconds=10)  # a lease


class OnStale(Enum):
    """What happens to files whose lease ended `max_stale` ago, while no broker can be asked."""

    KEEP = "keep"
    REMOVE = "remove"


class Hook(Struct, frozen=True):
    """What runs after another generation was written, and after a failure. All that is set must succeed."""

    signal: int = 0  # to the process of `pid_file`, if it is called `process`, or that is ""
    pid_file: Path | None = None
    process: str = ""
    command: tuple[str, ...] = ()
    systemd_reload: str = ""  # a unit
    on_failure: tuple[str, ...] = ()
    timeout: timedelta = timedelta(minutes=1)


class BundleTable(Struct, frozen=True):
    """One of `[[bundles]]`."""

    wanted: Wanted
    root: Path
    formats: tuple[FileFormat, ...] = ()
    copies: tuple[Copy, ...] = ()
    hook: Hook = field(default_factory=Hook)
    max_stale: timedelta = timedelta(hours=4)
    on_stale: OnStale = OnStale.REMOVE
    kv: Mapping[str, Any] | None = None  # [bundles.kv], as it is in the file

    @property
    def name(self) -> str:
        """Account and application."""
        return f"{self.wanted.account}/{self.wanted.application}"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    path: str
    mode: str = "0600"
    owner: str = ""


class _Hooks(msgspec.Struct, forbid_unknown_fields=True):
    signal: str = ""
    pid_file: str = ""
    process: str = ""
    command: list[str] = []
    systemd_reload: str = msgspec.field(default="", name="systemd-reload")
    on_failure: list[str] = []
    timeout: str = "60s"


class _Bundle(msgspec.Struct, forbid_unknown_fields=True):
    application: str
    ttl: str = "1h"
    directory: str = ""
    formats: list[str] = []
    max_stale: str = "4h"
    on_stale: OnStale = OnStale.REMOVE
    files: list[_File] = []
    hooks: _Hooks = msgspec.field(default_factory=_Hooks)
    kv: dict[str, Any] | None = None


def bundle_tables(tables: Sequence[Mapping[str, Any]], base: Path, default: Path | None = None) -> list[BundleTable]:
    """Return the bundles; paths begin at `base`, and directories at `default`. Raise `InputError`, naming the table."""
    found: list[BundleTable] = []
    for number, table in enumerate(tables, 1):
        name = table.get("application")
        where = f"[[bundles]] of {name!r:.80}" if isinstance(name, str) else f"[[bundles]], number {number}"
        try:
            found.append(_bundle(typed(table, _Bundle), base, default))
        except msgspec.ValidationError as error:
            raise InputError(f"{where}: {_plain(error)}", hint="docs/agent.md shows every key") from None
        except BrokerError as error:
            raise InputError(f"{where}: {error.message}", hint=error.hint) from None
    _require_apart([one.root for one in found], "directory")
    _require_apart([one.name for one in found], "application")
    _require_apart([copy.path for one in found for copy in one.copies], "path")
    return found


def _bundle(read: _Bundle, base: Path, default: Path | None) -> BundleTable:
    account, slash, application = read.application.partition("/")
    if not slash:
        raise InputError("application is not ACCOUNT/APPLICATION", hint='application = "acme/reporting"')
    ttl = parse_duration(read.ttl)
    if not _SHORTEST <= ttl <= LONGEST:
        raise InputError(f"a ttl of {read.ttl} is too short or too long", hint="between 10s and 1h")
    wanted = Wanted(account_name(account), checked_name(application, "application"), ttl)
    return BundleTable(
        wanted,
        _root(read.directory, base, default, wanted),
        tuple(_format(name) for name in read.formats),
        tuple(_copy(file, base) for file in read.files),
        _hook(read.hooks, base),
        parse_duration(read.max_stale),
        read.on_stale,
        read.kv,
    )


def _root(directory: str, base: Path, default: Path | None, wanted: Wanted) -> Path:
    if directory:
        return _anchored(directory, base)
    if default:
        return default / wanted.account / wanted.application
    return default_root(wanted.account, wanted.application, os.environ, os.getuid())


def _copy(file: _File, base: Path) -> Copy:
    kind = _format(file.format)
    if not _MODE.fullmatch(file.mode):
        raise InputError(f"mode {file.mode[:20]!r} is not a mode", hint='mode = "0640", for example')
    mode = int(file.mode, 8)
    if mode & _OTHERS_WRITE or (kind in _SECRET and mode & _OTHERS):
        raise InputError(f"mode {file.mode} opens {kind.value} to others", hint='mode = "0640" is for a group')
    return Copy(kind, _anchored(file.path, base), mode, _owner(file.owner))


def _hook(read: _Hooks, base: Path) -> Hook:
    number = 0
    if read.signal:
        name = f"SIG{read.signal.upper().removeprefix('SIG')}"
        if name not in signal.Signals.__members__:
            raise InputError(f"{read.signal[:20]!r} is not a signal", hint='signal = "HUP", for example')
        number = int(signal.Signals[name])
    if bool(number) != bool(read.pid_file):
        raise InputError("signal and pid_file belong together", hint='pid_file = "/run/nginx.pid", signal = "HUP"')
    if read.systemd_reload and not _UNIT.fullmatch(read.systemd_reload):
        raise InputError(f"{read.systemd_reload[:80]!r} is not a unit", hint='systemd-reload = "nginx.service"')
    return Hook(
        number,
        _anchored(read.pid_file, base) if read.pid_file else None,
        read.process,
        tuple(read.command),
        read.systemd_reload,
        tuple(read.on_failure),
        parse_duration(read.timeout),
    )


def _format(name: str) -> FileFormat:
    try:
        return FileFormat(name)
    except ValueError:
        hint = f"one of {', '.join(one.value for one in FileFormat)}"
        raise InputError(f"{name[:40]!r} is not a file of a bundle", hint=hint) from None


def _owner(text: str) -> tuple[int, int]:
    user, _, group = text.partition(":")
    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid if user else -1
        gid = int(group) if group.isdecimal() else getgrnam(group).gr_gid if group else -1
    except KeyError:
        hint = "USER, USER:GROUP or :GROUP, by name or number"
        raise InputError(f"owner {text[:80]!r} is not known on this machine", hint=hint) from None
    return uid, gid


def _anchored(path: str, base: Path) -> Path:
    if not path or not path.isprintable():
        raise InputError("a path is empty, or contains a control character", hint="use an absolute path")
    return base / Path(os.path.expanduser(path))  # noqa: PTH111  # raises for no "~x"


def _require_apart(paths: Collection[Path] | Collection[str], kind: str) -> None:
    twice = {path for path in paths if sum(path == other for other in paths) > 1}
    for path in twice:
        raise InputError(f"[[bundles]]: two of them use the {kind} {path}", hint=f"give each its own {kind}")


def _plain(error: msgspec.ValidationError) -> str:
    """Return the message with the place first, in our words."""
    message, _, place = str(error).partition(" - at `$.")
    message = message.replace("Object missing required field", "missing").replace(
        "Object contains unknown field", "unknown key"
    )
    return f"{place.removesuffix('`')}: {message}" if place else message
