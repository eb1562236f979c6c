"""Set a Vault or OpenBao up for the broker: mount, policies, logins. Compare, show, then change.

Idempotent: what is as it should be is left alone, and nothing is ever removed. Needs a token that may write policies
and mounts; the broker itself never does, and its roles cannot.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from broker.errors import ConflictError, RefusedError
from broker.vault import layout
from broker.vault.connection import Connection, Document
from broker.vault.faults import MissingError, UnmountedError
from broker.vault.logins import login_mount
from broker.vault.policies import ALL, BASE, Role, base_policy, policy_name, role_policy

__all__ = ["Action", "Change", "Item", "Wish", "apply", "changes", "plan", "wanted"]

_KEPT_VERSIONS: Final = 10
_TTL: Final = 20 * 60  # seconds; the broker renews at two thirds of it
_MAX_TTL: Final = 24 * 60 * 60
_NO_LOCKOUT: Final = {"lockout_disable": True}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: whose secrets the roles may reach, and how long their secret-ids live (0: for ever)."""

    accounts: tuple[str, ...] = ALL
    secret_id_ttl: int = 0  # seconds


class Action(Enum):
    """What a change does to Vault."""

    KEEP = "keep"
    CREATE = "create"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that Vault shall hold: `body`, written to `path`. `once` is written only where it is missing."""

    title: str
    path: str
    body: Document
    once: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done about an item. `difference` is for people: unified-diff lines, no secret in them."""

    item: Item
    action: Action
    difference: tuple[str, ...] = field(default=())


def wanted(mount: str, wish: Wish) -> tuple[Item, ...]:
    """Return all that a Vault needs for a broker under `mount`, in the order to write it."""
    logins = login_mount(mount)
    kv = {"type": "kv", "description": "credential broker", "options": {"version": "2"}}
    return (
        Item(f"mount {mount}/", f"sys/mounts/{mount}", kv, once=True),
        Item("bounds of the mount", f"{mount}/config", {"cas_required": True, "max_versions": _KEPT_VERSIONS}),
        _policy(mount, BASE, base_policy()),
        *(_policy(mount, role.value, role_policy(role, mount=mount, accounts=wish.accounts)) for role in Role),
        Item(f"logins auth/{logins}/", f"sys/auth/{logins}", {"type": "approle"}, once=True),
        # A secret-id cannot be guessed, so counting failures stops nobody but us: five logins with an outdated one, or
        # by somebody who knows the role-id, would keep every process of the role out for 15 minutes
        Item(f"no lock-out from auth/{logins}/", f"sys/auth/{logins}/tune", {"user_lockout_config": _NO_LOCKOUT}),
        *(Item(f"login {role.value}", f"auth/{logins}/role/{role.value}", _login(mount, role, wish)) for role in Role),
    )


def plan(vault: Connection, wish: Wish) -> tuple[Change, ...]:
    """Return what to do about every item, having looked; change nothing.

    Raise `RefusedError` where something else is mounted in the way.
    """
    _refuse_obstacles(vault)
    return tuple(_compared(vault, item) for item in wanted(vault.settings.mount, wish))


def changes(planned: Sequence[Change]) -> tuple[Change, ...]:
    """Return those of `planned` that do something."""
    return tuple(change for change in planned if change.action is not Action.KEEP)


def apply(vault: Connection, planned: Sequence[Change]) -> None:
    """Do what `plan` returned. Cut short, it can be planned and applied again; two at once make one of everything."""
    for change in changes(planned):
        if change.item.path.endswith("/config"):
            _there(vault, change.item)  # a mount made just now is not ready at once: a read, not a write, waits for it
        try:
            vault.call("POST", change.item.path, change.item.body)
        except ConflictError:  # another has mounted something there since: if it is what we would have, all is well
            if not change.item.once:
                raise
            _refuse_obstacles(vault)


def _policy(mount: str, name: str, text: str) -> Item:
    title = policy_name(mount, name)
    return Item(f"policy {title}", f"sys/policies/acl/{title}", {"policy": text})


def _login(mount: str, role: Role, wish: Wish) -> Document:
    return {
        "token_policies": [policy_name(mount, BASE), policy_name(mount, role.value)],
        "token_no_default_policy": True,
        "token_ttl": _TTL,
        "token_max_ttl": _MAX_TTL,
        "token_type": "service",
        "bind_secret_id": True,
        "secret_id_ttl": wish.secret_id_ttl,
    }


def _refuse_obstacles(vault: Connection) -> None:
    mounts = _data(vault.ask("GET", "sys/mounts"))
    for path in mounts:
        if f"{path}/".startswith(f"{layout.RIGHTS}/"):
            raise RefusedError(
                f"{path} is mounted where the broker's rights are paths of nothing", hint=f"move it: {layout.RIGHTS}/"
            )
    there = mounts.get(f"{vault.settings.mount}/")
    if there and (there.get("type") != "kv" or (there.get("options") or {}).get("version") != "2"):
        raise RefusedError(
            f"{vault.settings.mount}/ is mounted, but is no KV of version 2", hint="choose another mount in the config"
        )
    login = _data(vault.ask("GET", "sys/auth")).get(f"{login_mount(vault.settings.mount)}/")
    if login and login.get("type") != "approle":
        raise RefusedError(f"auth/{login_mount(vault.settings.mount)}/ is there, but is no AppRole")


def _compared(vault: Connection, item: Item) -> Change:
    there = _there(vault, item)
    if there is None:
        return Change(item, Action.CREATE, _difference("", _text(item.body)))
    seen = {name: there.get(name) for name in item.body}
    if item.once or _text(seen) == _text(item.body):
        return Change(item, Action.KEEP)
    return Change(item, Action.UPDATE, _difference(_text(seen), _text(item.body)))


def _there(vault: Connection, item: Item) -> Mapping[str, Any] | None:
    if item.path.endswith("/tune"):
        return _lockout(vault, item.path)
    if item.path.startswith(("sys/mounts/", "sys/auth/")):
        kind, _, path = item.path.removeprefix("sys/").partition("/")
        found: Mapping[str, Any] | None = _data(vault.ask("GET", f"sys/{kind}")).get(f"{path}/")
        return found
    try:
        return _data(vault.ask("GET", item.path))
    except (MissingError, UnmountedError):
        return None


def _lockout(vault: Connection, path: str) -> Mapping[str, Any] | None:
    """Return how a mount of logins is tuned, in the form in which it is set: Vault shows it in another."""
    mount = path.removeprefix("sys/auth/").removesuffix("/tune")
    if f"{mount}/" not in _data(vault.ask("GET", "sys/auth")):
        return None
    disabled = _data(vault.ask("GET", path)).get("user_lockout_disable")
    return {"user_lockout_config": {"lockout_disable": bool(disabled)}}


def _data(answer: Document) -> Mapping[str, Any]:
    data = answer.get("data")
    return data if isinstance(data, Mapping) else {}


def _text(body: Document) -> str:
    """Return `body` as lines: a policy as it is, anything else a name and its value as JSON a line."""
    lines = []
    for name, value in sorted(body.items()):
        said = json.dumps(sorted(value) if isinstance(value, list) else value, sort_keys=True)
        lines.append(str(value).strip() if name == "policy" else f"{name} = {said}")
    return "\n".join(lines)


def _difference(old: str, new: str) -> tuple[str, ...]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1)
    return tuple(line for line in lines if not line.startswith(("---", "+++")))
