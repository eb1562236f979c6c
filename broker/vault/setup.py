"""Set a Vault or OpenBao up for the broker: mount, policies, logins. Compare, show, then change.

Idempotent: what is as it should be is left alone, nothing is ever removed, and nothing changes for others who use the
same Vault. Needs a token that may write policies and mounts; the broker itself never does, and its roles cannot.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from broker.errors import ConflictError, RefusedError
from broker.vault.bounds import BOUNDED, BOUNDS, DESCRIPTION
from broker.vault.connection import Connection, Document
from broker.vault.logins import login_mount
from broker.vault.ownership import Ground, found, survey
from broker.vault.policies import ALL, BASE, Role, base_policy, policy_kind, policy_name, role_policy

__all__ = ["Action", "Change", "Item", "Wish", "apply", "changes", "plan", "wanted"]

_TTL: Final = 20 * 60  # seconds; the broker renews at two thirds of it
_MAX_TTL: Final = 24 * 60 * 60
_NO_LOCKOUT: Final = {"lockout_disable": True}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: whose secrets the roles may reach, and how long their secret-ids live (0: for ever).

    `adopt` allows mounts that others use: what is theirs is left as it is.
    """

    accounts: tuple[str, ...] = ALL
    secret_id_ttl: int = 0  # seconds
    adopt: bool = False


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


def wanted(ground: Ground, wish: Wish) -> tuple[Item, ...]:
    """Return all that a Vault needs for a broker on `ground`, in the order to write it."""
    mount, logins = ground.mount, login_mount(ground.mount)
    kv = {"type": "kv", "description": DESCRIPTION, "options": {"version": "2"}}
    approle = {"type": "approle", "description": DESCRIPTION}
    bounds = Item("bounds of the mount", f"{mount}/config", BOUNDS)
    # A secret-id cannot be guessed, so counting failures stops nobody but us: five logins with an outdated one, or
    # by somebody who knows the role-id, would keep every process of the role out for 15 minutes
    lockout = Item(f"no lock-out from auth/{logins}/", f"sys/auth/{logins}/tune", {"user_lockout_config": _NO_LOCKOUT})
    return (
        Item(f"mount {mount}/", f"sys/mounts/{mount}", kv, once=True),
        *([bounds] if ground.is_ours else []),
        *_policies(ground, wish),
        Item(f"logins auth/{logins}/", f"sys/auth/{logins}", approle, once=True),
        *([] if ground.roles else [lockout]),
        *(Item(f"login {role.value}", f"auth/{logins}/role/{role.value}", _login(mount, role, wish)) for role in Role),
    )


def plan(vault: Connection, wish: Wish) -> tuple[Change, ...]:
    """Return what to do about every item, having looked; change nothing.

    Raise `RefusedError` if what is somebody else's is in the way, or in use and not to be adopted.
    """
    ground = survey(vault)
    if not wish.adopt:
        ground.require_own()
    _require_own_policies(vault, ground, wish)
    items = (*wanted(ground, wish), *_bounds_of_documents(vault, ground))
    return tuple(_compared(vault, item) for item in items)


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
            _require_made_by_us(vault, change.item)


def _policies(ground: Ground, wish: Wish) -> tuple[Item, ...]:
    mount, shared = ground.mount, () if ground.is_ours else (ground.mount,)
    texts = {BASE: base_policy()} | {
        role.value: role_policy(role, mount=mount, accounts=wish.accounts, shared=shared) for role in Role
    }
    names = {policy_name(mount, name): text for name, text in texts.items()}
    return tuple(Item(f"policy {name}", f"sys/policies/acl/{name}", {"policy": text}) for name, text in names.items())


def _require_own_policies(vault: Connection, ground: Ground, wish: Wish) -> None:
    """Refuse policies of others that have our names. Once our logins are there, what differs was changed later."""
    if ground.is_set_up:
        return
    for item in _policies(ground, wish):
        there = found(vault, item.path)
        if there is not None and policy_kind(str(there.get("policy"))) != policy_kind(item.body["policy"]):
            raise RefusedError(f"the {item.title} is there, and not the broker's", hint=ground.own_mount)


def _bounds_of_documents(vault: Connection, ground: Ground) -> tuple[Item, ...]:
    """Return the bounds of each document that is there already, on a mount where each needs its own."""
    if ground.is_ours or not ground.is_set_up:
        return ()
    paths = [f"{folder}/{name}" for folder in BOUNDED for name in vault.list(folder) if not name.endswith("/")]
    return tuple(Item(f"bounds of {path}", f"{ground.mount}/metadata/{path}", BOUNDS) for path in paths)


def _require_made_by_us(vault: Connection, item: Item) -> None:
    """Refuse what somebody else mounted since we looked. Another set-up of ours may have been faster."""
    if (_there(vault, item) or {}).get("description") != DESCRIPTION:
        raise RefusedError(f"{item.title}: somebody else mounted it meanwhile", hint="broker vault setup --dry-run")


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
        return (found(vault, f"sys/{kind}") or {}).get(f"{path}/")
    return found(vault, item.path)


def _lockout(vault: Connection, path: str) -> Mapping[str, Any] | None:
    """Return how a mount of logins is tuned, in the form in which it is set: Vault shows it in another."""
    mount = path.removeprefix("sys/auth/").removesuffix("/tune")
    if f"{mount}/" not in (found(vault, "sys/auth") or {}):
        return None
    disabled = (found(vault, path) or {}).get("user_lockout_disable")
    return {"user_lockout_config": {"lockout_disable": bool(disabled)}}


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
