"""Set a Vault or OpenBao up for the broker: mount, policies, logins. Compare, show, then change, or print it as text.

Idempotent: what is right already is not written, nothing is ever removed, and nothing changes for others who use the
same Vault. Needs a token that may write policies and mounts; none of the broker's roles may.
"""

import difflib
import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from msgspec import Struct, field

from broker.copies import replace
from broker.errors import ConflictError, RefusedError
from broker.model.role import Role
from broker.vault import layout
from broker.vault.connection import ADMIN_HINT, Connection
from broker.vault.errors import Document, LackingError, unclear
from broker.vault.health import by_path, missing
from broker.vault.jwt_mounts import JwtMount
from broker.vault.ownership import Ground, found, mounts_of, require_own_jwt, survey
from broker.vault.policies import ALL, BASE, admin_policy, installed, policy_kind, policy_name, rights, role_policy

LOGIN: Final = {
    "token_no_default_policy": True,
    "token_ttl": 20 * 60,  # seconds; the broker renews at two thirds of it
    "token_max_ttl": 24 * 60 * 60,
    "token_type": "service",
    "bind_secret_id": True,
    "secret_id_ttl": 0,
}
_KV: Final = {"type": "kv", "description": layout.DESCRIPTION, "options": {"version": "2"}}
_APPROLE: Final = {"type": "approle", "description": layout.DESCRIPTION}
# A secret-id cannot be guessed, so counting failures stops only us: five logins with an outdated secret-id, or by
# anyone who knows the role-id, would lock every process of the role out for 15 minutes
_NO_LOCKOUT: Final = {"user_lockout_config": {"lockout_disable": True}}
_WRITE: Final = """
# {title}
{condition}"$vault" write {path} - <<'END-OF-JSON'
{body}
END-OF-JSON
"""


class Wish(Struct, frozen=True):
    """Options of a setup: the accounts whose secrets the roles may reach, and the JWT mounts to make.

    `adopt` allows mounts that others use; their settings are left unchanged.
    """

    accounts: tuple[str, ...] = ALL
    adopt: bool = False
    pki: Mapping[Role, Sequence[str]] = field(default_factory=dict)  # the paths where a PKI engine signs for a role
    issuers: tuple[JwtMount, ...] = ()


class Action(Enum):
    """Effect of a change on Vault."""

    KEEP = "keep"
    CREATE = "create"
    UPDATE = "update"


class Item(Struct, frozen=True):
    """One thing that Vault needs: `body`, written to `path`. With `once`, it is written only if it is missing.

    `plan` adds what to do about it. `difference` is for people: unified-diff lines, without secrets.
    """

    title: str
    path: str
    body: Document
    once: bool = False
    action: Action = Action.KEEP
    difference: tuple[str, ...] = ()


def wanted(ground: Ground, wish: Wish) -> tuple[Item, ...]:
    """Return everything that a Vault needs for a broker on `ground`, in the order to write it."""
    mount = ground.mount
    bounds = [Item("bounds of the mount", f"{mount}/config", layout.BOUNDS)] if ground.is_ours else []
    tune = Item(f"no lock-out from auth/{mount}/", f"sys/mounts/auth/{mount}/tune", _NO_LOCKOUT)
    return (
        Item(f"mount {mount}/", f"sys/mounts/{mount}", _KV, once=True),
        *bounds,
        *_policies(ground, wish),
        Item(f"logins auth/{mount}/", f"sys/auth/{mount}", _APPROLE, once=True),
        *(() if ground.roles else (tune,)),
        *(_login(mount, role.value) for role in Role),
        *(item for issuer in wish.issuers for item in _jwt_mount(issuer)),
    )


def plan(vault: Connection, wish: Wish) -> tuple[Item, ...]:
    """Compare every item with Vault and return what to do about it; change nothing.

    Raise `RefusedError` if something of others is in the way, or is in use and not to be adopted.
    """
    ground = survey(vault)
    if not wish.adopt:
        ground.require_own()
    for issuer in wish.issuers:
        require_own_jwt(vault, issuer.name, issuer.path)
    # Once our logins exist, a policy that differs is ours, and was changed later
    for item in () if ground.is_set_up else _policies(ground, wish):
        there = found(vault, item.path, "policy")
        if there is not None and policy_kind(str(there.get("policy"))) != policy_kind(item.body["policy"]):
            raise RefusedError(f"the {item.title} exists, and is not the broker's", hint=ground.own_mount)
    items = list(wanted(ground, wish))
    if ground.is_set_up and not ground.is_ours:  # there each document needs its own bounds
        for folder in layout.BOUNDED:
            paths = (f"{folder}/{name}" for name in vault.list(folder) if not name.endswith("/"))
            items += [Item(f"bounds of {path}", f"{ground.mount}/metadata/{path}", layout.BOUNDS) for path in paths]
    return tuple(_compared(vault, item) for item in items)


def changes(planned: Sequence[Item]) -> tuple[Item, ...]:
    """Return those of `planned` that change something."""
    return tuple(item for item in planned if item.action is not Action.KEEP)


def lacking_rights(vault: Connection, wish: Wish, paths: Collection[str] = ()) -> LackingError | None:
    """Return the error that names each right that the administrator lacks, on `paths` only if there are any."""
    made = [issuer.path for issuer in wish.issuers]
    wanted = rights(admin_policy(vault.settings.mount, shared=wish.adopt, jwt_mounts=made, issuers=made))
    lacks = by_path([right for right in missing(vault, wanted) if not paths or right[1] in paths])
    return LackingError(f"{vault.holder} lacks {'; '.join(lacks)}", hint=ADMIN_HINT) if lacks else None


def apply(vault: Connection, planned: Sequence[Item]) -> None:
    """Do what `plan` returned, and read it back. If interrupted, plan and apply again.

    Two concurrent runs have the same outcome.
    """
    for item in changes(planned):
        if _settles(item):
            _there(vault, item)  # a new mount is not ready immediately: a read waits for it, a write would not
        try:
            vault.call("POST", item.path, item.body)
        except ConflictError:  # mounted by others since we looked; another set-up of ours may have been faster
            if not item.once:
                raise
            if (_there(vault, item) or {}).get("description") != layout.DESCRIPTION:
                hint = "broker vault setup --dry-run"
                raise RefusedError(f"{item.title}: others mounted it meanwhile", hint=hint) from None
        if changes([_compared(vault, replace(item, action=Action.KEEP))]):
            raise unclear(item.path)


def as_shell(ground: Ground, items: Iterable[Item]) -> str:
    """Return a POSIX shell script that writes `items` with the `bao` or `vault` command.

    It refuses what `setup.plan` refuses. Called with "logins" it then fetches one for each role of the broker.
    """
    hint = f"use a mount of the broker's own: BROKER_MOUNT={ground.free} broker vault setup --print sh"
    if ground.is_ours:
        hint += "; to share this one: broker vault setup --print sh --adopt-mount"
    settings = {
        "mount": ground.mount,
        "shared": "no" if ground.is_ours else "yes",
        "roles": " ".join(role.value for role in Role),
        "rights": layout.RIGHTS,
        "prefix": policy_name(ground.mount, BASE).removesuffix(f"/{BASE}"),
        "description": layout.DESCRIPTION,
        "hint": hint,
    }
    checks, writes = [], []
    for item in items:
        if item.body.get("type") == "jwt":
            checks.append(f"require_own_jwt {shlex.quote(item.path.removeprefix('sys/auth/'))}\n")
        if policy := item.body.get("policy"):
            name = item.path.removeprefix("sys/policies/acl/")
            checks.append(f"require_own_policy {shlex.quote(name)} {shlex.quote(policy_kind(policy))}\n")
        body = json.dumps(dict(item.body), indent=2)
        writes.append(_WRITE.format(title=item.title, condition=_condition(item), path=item.path, body=body))
    lines = "\n".join(f"{name}={shlex.quote(text)}" for name, text in settings.items())
    return installed("setup.sh").replace("@settings@", lines).replace("@items@", "".join([*checks, *writes]))


def _policies(ground: Ground, wish: Wish) -> list[Item]:
    mount, shared = ground.mount, () if ground.is_ours else (ground.mount,)
    texts = {
        role.value: role_policy(role, mount=mount, accounts=wish.accounts, shared=shared, pki=wish.pki.get(role, ()))
        for role in Role
    }
    named = {policy_name(mount, name): text for name, text in {BASE: installed(f"{BASE}.hcl"), **texts}.items()}
    return [Item(f"policy {name}", f"sys/policies/acl/{name}", {"policy": text}) for name, text in named.items()]


def _login(mount: str, role: str) -> Item:
    login = {**LOGIN, "token_policies": [policy_name(mount, name) for name in (BASE, role)]}
    return Item(f"login {role}", f"auth/{mount}/role/{role}", login)


def _jwt_mount(issuer: JwtMount) -> tuple[Item, Item]:
    path = f"sys/auth/{issuer.path}"
    mount = {"type": "jwt", "description": layout.DESCRIPTION}
    return (
        Item(f"logins auth/{issuer.path}/", path, mount, once=True),
        Item(f"issuer {issuer.name}", f"auth/{issuer.path}/config", issuer.config),
    )


def _settles(item: Item) -> bool:
    """Return whether `item` needs a KV mount that may have been made just now."""
    return item.path.endswith("/config") and not item.path.startswith("auth/")


def _compared(vault: Connection, item: Item) -> Item:
    there = _there(vault, item)
    seen = _lines({name: there.get(name) for name in item.body}) if there is not None else []
    lines = _lines(item.body)
    if seen == lines or (seen and item.once):
        return item
    shown = tuple(difflib.unified_diff(seen, lines, lineterm="", n=1))[2:]  # without the names of files
    return replace(item, action=Action.UPDATE if seen else Action.CREATE, difference=shown)


def _there(vault: Connection, item: Item) -> Mapping[str, Any] | None:
    if not item.path.startswith(("sys/mounts/", "sys/auth/")):
        return found(vault, item.path, *item.body)
    _, kind, path = item.path.replace("sys/mounts/auth/", "sys/auth/").removesuffix("/tune").split("/", 2)
    mount = mounts_of(vault, f"sys/{kind}").get(f"{path}/")
    if mount is None or item.body is not _NO_LOCKOUT:
        return mount
    tuned = found(vault, item.path, "default_lease_ttl") or {}
    disabled = bool(tuned.get("user_lockout_disable"))  # shown in another form than set
    return {"user_lockout_config": {"lockout_disable": disabled}}


def _lines(body: Document) -> list[str]:
    """Return `body` as lines: a policy unchanged, anything else as a name and its value in JSON a line."""
    if "policy" in body:
        return str(body["policy"]).strip().splitlines()
    plain = {name: sorted(value) if isinstance(value, list) else value for name, value in sorted(body.items())}
    return [f"{name} = {json.dumps(value, sort_keys=True)}" for name, value in plain.items()]


def _condition(item: Item) -> str:
    if _settles(item):
        return f"settle {item.path}\n"
    if item.path.endswith("/tune"):
        return '[ "$shared_logins" = yes ] || '
    return f"there {item.path} || " if item.once else ""
