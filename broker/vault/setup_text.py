"""Set-up as text, to be run or read by others: a shell script, or HCL."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Final

from broker.vault import layout
from broker.vault.bounds import DESCRIPTION
from broker.vault.logins import login_mount
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
    script = installed("setup.sh").replace("@settings@", "\n".join(_settings(ground)))
    return script.replace("@items@", "".join([*_checks(items), *_writes(items)]))


def as_hcl(items: Iterable[Item]) -> str:
    """Return the policies among `items` as HCL, each under its name; the rest as comments."""
    parts = [_HCL_HEAD]
    for item in items:
        policy = item.body.get("policy")
        if policy:
            parts.append(f"# ---- {item.title}\n{policy}")
        else:
            parts.append(f"# ---- {item.title}: {item.path} {json.dumps(dict(item.body))}\n")
    return "\n".join(parts)


def _settings(ground: Ground) -> Iterator[str]:
    hint = f"use a mount of the broker's own: BROKER_MOUNT={ground.free} broker vault setup --print sh"
    if ground.is_ours:
        hint += "; to share this one: broker vault setup --print sh --adopt-mount"
    values = {
        "mount": ground.mount,
        "login": login_mount(ground.mount),
        "shared": "no" if ground.is_ours else "yes",
        "roles": " ".join(role.value for role in Role),
        "rights": layout.RIGHTS,
        "prefix": policy_name(ground.mount, BASE).removesuffix(f"/{BASE}"),
        "description": DESCRIPTION,
        "hint": hint,
    }
    return (f"{name}={shlex.quote(value)}" for name, value in values.items())


def _checks(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        if policy := item.body.get("policy"):
            name = item.path.removeprefix("sys/policies/acl/")
            yield f"require_own_policy {shlex.quote(name)} {shlex.quote(policy_kind(policy))}\n"


def _writes(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        condition = ""
        if item.path.endswith("/config"):
            condition = f"settle {item.path}\n"
        elif item.path.endswith("/tune"):
            condition = '[ "$shared_logins" = yes ] || '
        elif item.once:
            condition = f"there {item.path} || "
        body = json.dumps(dict(item.body), indent=2)
        yield _WRITE.format(title=item.title, condition=condition, path=item.path, body=body)
