"""Tell what a set-up of ours made in a Vault from what others use, so that setting up changes nothing of theirs.

A mount is ours if it has our description. A mount of logins is also ours if one of our roles there has our policies:
earlier versions gave it no description.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Final

from broker.errors import RefusedError, UnknownNameError
from broker.vault import layout
from broker.vault.bounds import DESCRIPTION
from broker.vault.connection import Connection, Document
from broker.vault.errors import MissingError, UnmountedError
from broker.vault.logins import login_mount
from broker.vault.policies import BASE, Role, policy_name
from broker.vault.settings import DEFAULT_MOUNT

__all__ = ["Ground", "found", "is_same_kind", "require_set_up", "survey", "unseen"]

_SHOWN: Final = 5  # names, in a message


@dataclass(frozen=True, slots=True)
class Ground:
    """What lies where a broker under `mount` is set up. Without more, nothing does."""

    mount: str
    is_ours: bool = True  # the KV mount: made by a set-up, or not there yet
    names: tuple[str, ...] = ()  # at the top of a KV mount that is not ours
    logins_are_ours: bool = True
    roles: tuple[str, ...] = ()  # in a mount of logins that is not ours, without our own
    is_set_up: bool = False  # our logins are there
    free: str = DEFAULT_MOUNT  # a name that no mount has

    @property
    def own_mount(self) -> str:
        """The hint to use a mount that nobody else uses."""
        return (
            f"use a mount of the broker's own: BROKER_MOUNT={self.free} broker vault setup --dry-run; "
            f'then set mount = "{self.free}" under [vault] in broker.toml'
        )

    def require_own(self) -> None:
        """Raise `RefusedError` if others use what is not set up for the broker yet."""
        in_use = self._in_use()
        if in_use and not self.is_set_up:
            raise RefusedError(
                f"{'; '.join(in_use)}: broker vault setup made neither, and others may use it",
                hint=f"{self.own_mount}. To share it nevertheless, "
                "see the effects first: broker vault setup --adopt-mount --dry-run",
            )

    def effects(self) -> tuple[str, ...]:
        """Return what it means to share these mounts, for people; nothing if they are ours."""
        return (*self._effects_of_the_mount(), *self._effects_of_the_logins())

    def _in_use(self) -> tuple[str, ...]:
        said = []
        if self.names:
            said.append(f"{self.mount}/ holds {_few(self.names)}")
        if self.roles:
            said.append(f"auth/{login_mount(self.mount)}/ has the roles {_few(self.roles)}")
        return tuple(said)

    def _effects_of_the_mount(self) -> tuple[str, ...]:
        if self.is_ours:
            return ()
        mount = self.mount
        taken = sorted(set(layout.FOLDERS) & {name.rstrip("/") for name in self.names})
        lines = [
            f"{mount}/ keeps its own cas_required and max_versions: the broker's documents get theirs one by one",
            f"the broker's documents come to lie in {mount}/ under {', '.join(layout.FOLDERS)}",
            f"whoever may read all of {mount}/ can read the broker's private keys and passwords",
        ]
        if taken:
            lines.append(f"what lies under {', '.join(taken)} already: the broker's roles get their rights on it too")
        return tuple(lines)

    def _effects_of_the_logins(self) -> tuple[str, ...]:
        if self.logins_are_ours:
            return ()
        where = f"auth/{login_mount(self.mount)}/"
        return (
            f"the broker's roles come to lie in {where}, beside {_few(self.roles)}",
            f"{where} keeps its lock-out: five logins with a wrong secret-id keep a role of the broker out for a while",
        )


def survey(vault: Connection) -> Ground:
    """Look at where the broker is to be set up. Raise `RefusedError` for what can be neither used nor shared."""
    mount = vault.settings.mount
    mounts, logins = found(vault, "sys/mounts") or {}, found(vault, "sys/auth") or {}
    ground = Ground(mount, free=_free({*mounts, *logins}))
    _require_rights(mounts)
    _require_place(ground, mounts, mount, "")
    _require_place(ground, logins, login_mount(mount), "auth/")
    there, login = mounts.get(f"{mount}/"), logins.get(f"{login_mount(mount)}/")
    is_ours, names = _kv(vault, ground, there) if there else (True, ())
    is_set_up, roles = _logins(vault, ground, login) if login else (False, ())
    return Ground(mount, is_ours, names, not roles, roles, is_set_up, ground.free)


def unseen(mount: str, *, shared: bool) -> Ground:
    """Return the ground in a Vault that we cannot look at: a mount of ours, or one that others use."""
    return Ground(mount, is_ours=not shared, free=_free((f"{mount}/",)))


def require_set_up(vault: Connection) -> None:
    """Raise `UnknownNameError` unless the logins of this mount are a set-up's of ours; else what `survey` raises."""
    if not survey(vault).is_set_up:
        raise UnknownNameError(
            f"this Vault is not set up for the broker under {vault.settings.mount}/",
            hint="run: broker vault setup --dry-run",
        )


def is_same_kind(policy: str, ours: str) -> bool:
    """Return whether `policy` begins as `ours` does, whatever version of the broker wrote it."""
    return policy.lstrip().partition(":")[0] == ours.partition(":")[0]


def found(vault: Connection, path: str) -> Mapping[str, Any] | None:
    """Return the data that Vault has at `path`, None if it has nothing there."""
    try:
        data = vault.ask("GET", path).get("data")
    except (MissingError, UnmountedError):
        return None
    return data if isinstance(data, Mapping) else {}


def _require_rights(mounts: Iterable[str]) -> None:
    for path in mounts:
        if path.startswith(f"{layout.RIGHTS}/"):
            raise RefusedError(
                f"{path} is mounted where the broker's rights must name nothing",
                hint=f"ask its owner to move it: bao secrets move {path} moved-{path}",
            )


def _require_place(ground: Ground, mounts: Collection[str], mount: str, prefix: str) -> None:
    """Refuse a path within another mount, or around one: Vault would take what we write there as that mount's."""
    own = f"{mount}/"
    if own in mounts:
        return
    for other in mounts:
        if own.startswith(other) or other.startswith(own):
            raise RefusedError(f"{prefix}{other} is mounted, so {prefix}{own} cannot be", hint=ground.own_mount)


def _kv(vault: Connection, ground: Ground, there: Document) -> tuple[bool, tuple[str, ...]]:
    """Return whether the KV mount is ours, and the names at its top if it is not."""
    mount = ground.mount
    version = (there.get("options") or {}).get("version")
    if there.get("type") != "kv" or version != "2":
        kind = f"{there.get('type')} of version {version or 1}" if there.get("type") == "kv" else there.get("type")
        raise RefusedError(f"{mount}/ is a mount of {kind}, not of kv of version 2", hint=ground.own_mount)
    if there.get("description") == DESCRIPTION:
        return True, ()
    forgets = (found(vault, f"{mount}/config") or {}).get("delete_version_after")
    if forgets not in (None, "", "0s"):
        raise RefusedError(
            f"{mount}/ deletes what is written after {forgets}: keys and evidence would be lost", hint=ground.own_mount
        )
    return False, vault.list("")


def _logins(vault: Connection, ground: Ground, there: Document) -> tuple[bool, tuple[str, ...]]:
    """Return whether our logins are in the mount, and the roles of others if it is not ours."""
    path = f"auth/{login_mount(ground.mount)}"
    if there.get("type") != "approle":
        raise RefusedError(f"{path}/ is a login of {there.get('type')}, not an AppRole", hint=ground.own_mount)
    if there.get("description") == DESCRIPTION:
        return True, ()
    roles = _roles(vault, path)
    ours = [role.value for role in Role if role.value in roles]
    if any(_has_our_policies(vault, f"{path}/role/{role}", role) for role in ours):
        return True, tuple(role for role in roles if role not in ours and not role.startswith("consumer-"))
    if ours:
        raise RefusedError(f"{path}/ has roles of others called {_few(ours)}", hint=ground.own_mount)
    return False, roles


def _roles(vault: Connection, path: str) -> tuple[str, ...]:
    try:
        data = vault.ask("LIST", f"{path}/role").get("data")
    except MissingError:
        return ()
    return tuple(data["keys"]) if isinstance(data, Mapping) and isinstance(data.get("keys"), list) else ()


def _has_our_policies(vault: Connection, path: str, role: str) -> bool:
    policies = (found(vault, path) or {}).get("token_policies") or ()
    return {policy_name(vault.settings.mount, name) for name in (BASE, role)} <= set(policies)


def _free(taken: Collection[str]) -> str:
    names = chain([DEFAULT_MOUNT], (f"{DEFAULT_MOUNT}-{number}" for number in count(2)))
    return next(name for name in names if not any(path.split("/")[0] == name for path in taken))


def _few(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
