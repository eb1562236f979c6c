"""Find out whether mounts, logins and policies in a Vault were made by the broker's set-up, or are used by others.

Setting up changes nothing of theirs. A mount is ours if it has our description. A mount of logins is also ours if one
of our roles there has our policies: earlier versions gave it no description.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import count
from textwrap import shorten
from typing import Any

from msgspec import Struct

from broker.copies import replace
from broker.errors import RefusedError, UnknownNameError
from broker.model.role import Role
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.errors import Document, MissingError, UnmountedError, field_of, names_in, unclear
from broker.vault.policies import BASE, policy_name
from broker.vault.settings import DEFAULT_MOUNT


class Ground(Struct, frozen=True):
    """The mounts at the paths of a broker under `mount`. By default they are ours, or do not exist yet."""

    mount: str
    free: str  # a name that no mount has
    is_ours: bool = True  # the KV mount
    names: tuple[str, ...] = ()  # at the top of a KV mount that is not ours
    roles: tuple[str, ...] = ()  # of others, in the mount of logins
    is_set_up: bool = False  # our logins exist

    @property
    def own_mount(self) -> str:
        """The hint to use a mount that nobody else uses."""
        return (
            f"use a mount of the broker's own: BROKER_MOUNT={self.free} broker vault setup --dry-run; "
            f'then set mount = "{self.free}" under [vault] in broker.toml'
        )

    def require_own(self) -> None:
        """Raise `RefusedError` if others use mounts that are not set up for the broker yet."""
        in_use = [f"{self.mount}/ holds {_few(self.names)}"] if self.names else []
        if self.roles:
            in_use.append(f"auth/{self.mount}/ has the roles {_few(self.roles)}")
        if in_use and not self.is_set_up:
            share = "To share it nevertheless, see the effects first: broker vault setup --adopt-mount --dry-run"
            message = f"{'; '.join(in_use)}: broker vault setup made neither, and others may use it"
            raise RefusedError(message, hint=f"{self.own_mount}. {share}")

    def effects(self) -> Iterator[str]:
        """Yield the effects of sharing these mounts, for people; nothing if they are ours."""
        mount, logins = self.mount, f"auth/{self.mount}/"
        if not self.is_ours:
            yield f"{mount}/ keeps its own cas_required and max_versions: the broker's documents get theirs one by one"
            yield f"the broker's documents will be in {mount}/ under {', '.join(layout.FOLDERS)}"
            yield f"anyone who may read all of {mount}/ can read the broker's private keys and passwords"
            taken = sorted(set(layout.FOLDERS) & {name.rstrip("/") for name in self.names})
            if taken:
                yield f"the broker's roles get rights on data that is already under {', '.join(taken)}, too"
        if self.roles:
            yield f"the broker's roles will be in {logins}, beside {_few(self.roles)}"
            yield f"{logins} keeps its lock-out: five logins with a wrong secret-id lock a role of the broker out"


def survey(vault: Connection) -> Ground:
    """Return the ground of this mount; raise `RefusedError` if it can be neither used nor shared."""
    mount = vault.settings.mount
    mounts, auths = mounts_of(vault, "sys/mounts"), mounts_of(vault, "sys/auth")
    ground = unseen(mount, taken={*mounts, *auths})
    for path in mounts:
        if path.startswith(f"{layout.RIGHTS}/"):
            message = f"{path} is mounted, and the paths of the broker's rights must stay free"
            raise RefusedError(message, hint=f"ask its owner to move it: bao secrets move {path} moved-{path}")
    own = f"{mount}/"
    for prefix, others in (("", mounts), ("auth/", auths)):
        _require_apart(own, others, prefix, ground.own_mount)
    if own in mounts:
        ground = _with_kv(vault, ground, mounts[own])
    return _with_logins(vault, ground, auths[own]) if own in auths else ground


def require_own_jwt(vault: Connection, name: str, path: str) -> None:
    """Raise `RefusedError` if others mounted something where the JWT mount of the issuer `name` is to be."""
    auths = mounts_of(vault, "sys/auth")
    hint = f"set another mount under [issuers.{name}] in broker.toml; to use theirs, name it there without its keys"
    _require_apart(f"{path}/", auths, "auth/", hint)
    there = auths.get(f"{path}/")
    if there and (there.get("type"), there.get("description")) != ("jwt", layout.DESCRIPTION):
        raise RefusedError(f"auth/{path}/ exists, and is not the broker's", hint=hint)


def unseen(mount: str, *, shared: bool = False, taken: Collection[str] = ()) -> Ground:
    """Return the ground in a Vault that we have not looked at: the broker's mount, or one that others use."""
    used = {path.split("/")[0] for path in (mount, *taken)}
    names = (f"{DEFAULT_MOUNT}-{number}".removesuffix("-1") for number in count(1))
    return Ground(mount, next(name for name in names if name not in used), is_ours=not shared)


def require_set_up(vault: Connection) -> None:
    """Raise `UnknownNameError` unless the broker's set-up made the logins of this mount; else as `survey`."""
    if not survey(vault).is_set_up:
        message = f"this Vault is not set up for the broker under {vault.settings.mount}/"
        raise UnknownNameError(message, hint="run: broker vault setup --dry-run")


def found(vault: Connection, path: str, *keys: str) -> Mapping[str, Any] | None:
    """Return the data that Vault has at `path`, None if it has nothing there.

    Raise `UnclearError` if no Vault would send this: no data, or none of `keys`.
    """
    try:
        data = vault.ask("GET", path).get("data")
    except (MissingError, UnmountedError):
        return None
    if not isinstance(data, Mapping) or (keys and not any(key in data for key in keys)):
        raise unclear(path)
    return data


def looked_up(vault: Connection, path: str, body: Document, key: str) -> Mapping[str, Any] | None:
    """Return the data of a look-up, which has `key`; None if Vault knows nothing like `body`."""
    try:
        data = vault.ask("POST", path, body).get("data")
    except (MissingError, UnmountedError):
        return None
    if data and not (isinstance(data, Mapping) and key in data):
        raise unclear(path)
    return data or None


def names_at(vault: Connection, path: str) -> tuple[str, ...]:
    """Return the names that Vault lists at `path`."""
    try:
        return names_in(vault.ask("LIST", path), path)
    except (MissingError, UnmountedError):
        return ()


def mounts_of(vault: Connection, path: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the mounts that `path` describes, each by its own path; every Vault has some."""
    mounts = field_of(vault.ask("GET", path), "data")
    if not mounts or not isinstance(mounts, Mapping) or not all(map(_is_mount, mounts.items())):
        raise unclear(path)
    return mounts


def _is_mount(item: tuple[str, Any]) -> bool:
    name, mount = item
    return name.endswith("/") and isinstance(mount, Mapping)


def _require_apart(own: str, others: Collection[str], prefix: str, hint: str) -> None:
    """Raise `RefusedError` if another mount is above or below `own`: Vault would take our writes for its data."""
    for other in () if own in others else others:
        if own.startswith(other) or other.startswith(own):
            raise RefusedError(f"{prefix}{other} is mounted, so {prefix}{own} cannot be", hint=hint)


def _with_kv(vault: Connection, ground: Ground, there: Document) -> Ground:
    """Return `ground` with what `there`, the mount at its path, holds."""
    mount = ground.mount
    kind, version = there.get("type"), (there.get("options") or {}).get("version") or "1"
    if kind != "kv" or version != "2":
        kind = f"kv of version {version}" if kind == "kv" else kind
        raise RefusedError(f"{mount}/ is a mount of {kind}, not of kv of version 2", hint=ground.own_mount)
    if there.get("description") == layout.DESCRIPTION:
        return ground
    lifetime = (found(vault, f"{mount}/config", "max_versions") or {}).get("delete_version_after")
    if lifetime not in (None, "", "0s"):
        message = f"{mount}/ deletes data after {lifetime}: keys and evidence would be lost"
        raise RefusedError(message, hint=ground.own_mount)
    return replace(ground, is_ours=False, names=vault.list(""))


def _with_logins(vault: Connection, ground: Ground, there: Document) -> Ground:
    """Return `ground` with the roles that `there`, the login at its path, has."""
    path = f"auth/{ground.mount}"
    if there.get("type") != "approle":
        raise RefusedError(f"{path}/ is a login of {there.get('type')}, not an AppRole", hint=ground.own_mount)
    if there.get("description") == layout.DESCRIPTION:
        return replace(ground, is_set_up=True)
    roles = names_at(vault, f"{path}/role")
    ours = [role.value for role in Role if role.value in roles]
    for role in ours:
        policies = (found(vault, f"{path}/role/{role}", "token_policies") or {}).get("token_policies") or ()
        if {policy_name(ground.mount, name) for name in (BASE, role)} <= set(policies):
            others = tuple(role for role in roles if role not in ours and not role.startswith("consumer-"))
            return replace(ground, roles=others, is_set_up=True)
    if ours:
        raise RefusedError(f"{path}/ has roles of others called {_few(ours)}", hint=ground.own_mount)
    return replace(ground, roles=roles)


def _few(names: Collection[str]) -> str:
    return shorten(", ".join(sorted(names)), 120, placeholder=" and more")
