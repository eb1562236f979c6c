"""Set a Vault or OpenBao up for the broker: mount, policies, logins. Compare, show, then change.

Idempotent: what is right already is not written, nothing is ever removed, and nothing changes for others who use the
same Vault. Needs a token that may write policies and mounts; none of the broker's roles may.
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

_LOGIN: Final = {
    "token_no_default_policy": True,
    "token_ttl": 20 * 60,  # seconds; the broker renews at two thirds of it
    "token_max_ttl": 24 * 60 * 60,
    "token_type": "service",
    "bind_secret_id": True,
    "secret_id_ttl": 0,
}
_NO_LOCKOUT: Final = {"user_lockout_config": {"lockout_disable": True}}


@dataclass(frozen=True, slots=True)
class Wish:
    """Options of a setup: the accounts whose secrets the roles may reach.

    `adopt` allows mounts that others use; their settings are left unchanged.
    """

    accounts: tuple[str, ...] = ALL
    adopt: bool = False


class Action(Enum):
    """Effect of a change on Vault."""

    KEEP = "keep"
    CREATE = "create"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that Vault needs: `body`, written to `path`. With `once`, it is written only if it is missing."""

    title: str
    path: str
    body: Document
    once: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """An item and what to do about it. `difference` is for people: unified-diff lines, without secrets."""

    item: Item
    action: Action
    difference: tuple[str, ...] = field(default=())


def wanted(ground: Ground, wish: Wish) -> tuple[Item, ...]:
    """Return everything that a Vault needs for a broker on `ground`, in the order to write it."""
    mount, logins = ground.mount, login_mount(ground.mount)
    kv = {"type": "kv", "description": DESCRIPTION, "options": {"version": "2"}}
    approle = {"type": "approle", "description": DESCRIPTION}
    bounds = Item("bounds of the mount", f"{mount}/config", BOUNDS)
    # A secret-id cannot be guessed, so counting failures stops only us: five logins with an outdated secret-id, or by
    # anyone who knows the role-id, would lock every process of the role out for 15 minutes
    lockout = Item(f"no lock-out from auth/{logins}/", f"sys/auth/{logins}/tune", _NO_LOCKOUT)
    return (
        Item(f"mount {mount}/", f"sys/mounts/{mount}", kv, once=True),
        *([bounds] if ground.is_ours else []),
        *_policies(ground, wish),
        Item(f"logins auth/{logins}/", f"sys/auth/{logins}", approle, once=True),
        *([] if ground.roles else [lockout]),
        *(Item(f"login {role.value}", f"auth/{logins}/role/{role.value}", _login(mount, role)) for role in Role),
    )


def plan(vault: Connection, wish: Wish) -> tuple[Change, ...]:
    """Compare every item with Vault and return what to do about it; change nothing.

    Raise `RefusedError` if something of others is in the way, or is in use and not to be adopted.
    """
    ground = survey(vault)
    if not wish.adopt:
        ground.require_own()
    if not ground.is_set_up:  # once our logins exist, a policy that differs was changed later
        _require_own_policies(vault, ground, wish)
    items = [*wanted(ground, wish), *_bounds_of_documents(vault, ground)]
    return tuple(_compared(vault, item) for item in items)


def changes(planned: Sequence[Change]) -> tuple[Change, ...]:
    """Return those of `planned` that change something."""
    return tuple(change for change in planned if change.action is not Action.KEEP)


def apply(vault: Connection, planned: Sequence[Change]) -> None:
    """Do what `plan` returned. If interrupted, plan and apply again; two concurrent runs have the same outcome."""
    for change in changes(planned):
        item = change.item
        if item.path.endswith("/config"):
            _there(vault, item)  # a new mount is not ready immediately: a read waits for it, a write would not
        try:
            vault.call("POST", item.path, item.body)
        except ConflictError:  # mounted by others since we looked; another set-up of ours may have been faster
            if not item.once:
                raise
            if (_there(vault, item) or {}).get("description") != DESCRIPTION:
                raise RefusedError(
                    f"{item.title}: others mounted it meanwhile", hint="broker vault setup --dry-run"
                ) from None


def _policies(ground: Ground, wish: Wish) -> list[Item]:
    mount, shared = ground.mount, () if ground.is_ours else (ground.mount,)
    texts = {BASE: base_policy()} | {
        role.value: role_policy(role, mount=mount, accounts=wish.accounts, shared=shared) for role in Role
    }
    names = {policy_name(mount, name): text for name, text in texts.items()}
    return [Item(f"policy {name}", f"sys/policies/acl/{name}", {"policy": text}) for name, text in names.items()]


def _require_own_policies(vault: Connection, ground: Ground, wish: Wish) -> None:
    for item in _policies(ground, wish):
        there = found(vault, item.path)
        if there is not None and policy_kind(str(there.get("policy"))) != policy_kind(item.body["policy"]):
            raise RefusedError(f"the {item.title} exists, and is not the broker's", hint=ground.own_mount)


def _bounds_of_documents(vault: Connection, ground: Ground) -> list[Item]:
    """Return the bounds of each existing document, for a mount whose documents need their own."""
    if ground.is_ours or not ground.is_set_up:
        return []
    paths = [f"{folder}/{name}" for folder in BOUNDED for name in vault.list(folder) if not name.endswith("/")]
    return [Item(f"bounds of {path}", f"{ground.mount}/metadata/{path}", BOUNDS) for path in paths]


def _login(mount: str, role: Role) -> Document:
    return {**_LOGIN, "token_policies": [policy_name(mount, BASE), policy_name(mount, role.value)]}


def _compared(vault: Connection, item: Item) -> Change:
    there = _there(vault, item)
    if there is None:
        return Change(item, Action.CREATE, _difference("", _text(item.body)))
    seen = {name: there.get(name) for name in item.body}
    if item.once or _text(seen) == _text(item.body):
        return Change(item, Action.KEEP)
    return Change(item, Action.UPDATE, _difference(_text(seen), _text(item.body)))


def _there(vault: Connection, item: Item) -> Mapping[str, Any] | None:
    if not item.path.startswith(("sys/mounts/", "sys/auth/")):
        return found(vault, item.path)
    kind, _, path = item.path.removeprefix("sys/").partition("/")
    mount = (found(vault, f"sys/{kind}") or {}).get(f"{path.removesuffix('/tune')}/")
    if mount is None or not path.endswith("/tune"):
        return mount
    disabled = (found(vault, item.path) or {}).get("user_lockout_disable")  # shown in another form than set
    return {"user_lockout_config": {"lockout_disable": bool(disabled)}}


def _text(body: Document) -> str:
    """Return `body` as lines: a policy unchanged, anything else as a name and its value in JSON a line."""
    lines = []
    for name, value in sorted(body.items()):
        said = json.dumps(sorted(value) if isinstance(value, list) else value, sort_keys=True)
        lines.append(str(value).strip() if name == "policy" else f"{name} = {said}")
    return "\n".join(lines)


def _difference(old: str, new: str) -> tuple[str, ...]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1)
    return tuple(line for line in lines if not line.startswith(("---", "+++")))
