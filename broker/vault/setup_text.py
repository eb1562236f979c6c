"""Set-up as text, to be run or read by others: a shell script, or HCL."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import Final

from broker.vault import layout
from broker.vault.ownership import Ground
from broker.vault.policies import BASE, Role, installed, policy_kind, policy_name
from broker.vault.setup import Item

__all__ = ["as_hcl", "as_shell"]

_HCL_HEAD: Final = """\
# Settings of a whole mount are for a mount that was made for the broker. Leave them out if others use it.
"""
_WRITE: Final = """
# {title}
{condition}"$vault" write {path} - <<'END-OF-JSON'
{body}
END-OF-JSON
"""


def as_shell(ground: Ground, items: Iterable[Item]) -> str:
    """Return a POSIX shell script that writes `items` with the `bao` or `vault` command.

    It refuses what `setup.plan` refuses. Called with "logins" it then fetches one for each role of the broker.
    """
    hint = f"use a mount of the broker's own: BROKER_MOUNT={ground.free} broker vault setup --print sh"
    if ground.is_ours:
        hint += "; to share this one: broker vault setup --print sh --adopt-mount"
    settings = {
        "mount": ground.mount,
        "login": ground.mount,
        "shared": "no" if ground.is_ours else "yes",
        "roles": " ".join(role.value for role in Role),
        "rights": layout.RIGHTS,
        "prefix": policy_name(ground.mount, BASE).removesuffix(f"/{BASE}"),
        "description": layout.DESCRIPTION,
        "hint": hint,
    }
    checks, writes = [], []
    for item in items:
        if policy := item.body.get("policy"):
            name = item.path.removeprefix("sys/policies/acl/")
            checks.append(f"require_own_policy {shlex.quote(name)} {shlex.quote(policy_kind(policy))}\n")
        body = json.dumps(dict(item.body), indent=2)
        writes.append(_WRITE.format(title=item.title, condition=_condition(item), path=item.path, body=body))
    script = installed("setup.sh").replace(
        "@settings@", "\n".join(f"{k}={shlex.quote(v)}" for k, v in settings.items())
    )
    return script.replace("@items@", "".join([*checks, *writes]))


def as_hcl(items: Iterable[Item]) -> str:
    """Return the policies among `items` as HCL, each under its name; the rest as comments."""
    parts = [_HCL_HEAD]
    for item in items:
        policy = item.body.get("policy")
        rest = f"\n{policy}" if policy else f": {item.path} {json.dumps(dict(item.body))}\n"
        parts.append(f"# ---- {item.title}{rest}")
    return "\n".join(parts)


def _condition(item: Item) -> str:
    if item.path.endswith("/config"):
        return f"settle {item.path}\n"
    if item.path.endswith("/tune"):
        return '[ "$shared_logins" = yes ] || '
    return f"there {item.path} || " if item.once else ""
