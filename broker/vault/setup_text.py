"""What somebody else could run or read, where the one at the keyboard may not set Vault up."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from broker.vault.logins import login_mount
from broker.vault.policies import Role
from broker.vault.setup import Item

__all__ = ["as_hcl", "as_shell"]

_HEAD: Final = """#!/bin/sh
# Sets Vault or OpenBao up for the credential broker. Run it with VAULT_ADDR (BAO_ADDR) and a token that may write
# mounts and policies. It can be run again: it removes nothing.
set -eu
vault=${VAULT_COMMAND:-$(command -v bao || command -v vault)}
"""
_WRITE: Final = """
# {title}
{condition}"$vault" write {path} - <<'END-OF-JSON'
{body}
END-OF-JSON
"""
_UNLESS_THERE: Final = '"$vault" read {path} >/dev/null 2>&1 || '
_SETTLE: Final = """
# A new KV mount needs a moment before it takes anything
for _ in 1 2 3 4 5 6 7 8 9 10; do "$vault" read {path} >/dev/null 2>&1 && break; sleep 1; done
"""
_LOGINS: Final = """
# What each role logs in with. A secret-id is in a wrapping, opened once and within the hour, where the role works:
#   bao unwrap -field=secret_id WRAPPING >secret_id
# Each time makes new secret-ids, so it is done where it was asked for: with the word "logins"
if [ "${{1-}}" != logins ]; then
  echo "set up; next, for each role's role_id and wrapped secret_id, run it again with: logins" >&2
  exit 0
fi
for role in {roles}; do
  role_id=$("$vault" read -field=role_id auth/{mount}/role/$role/role-id)
  wrapping=$("$vault" write -force -wrap-ttl=1h -field=wrapping_token auth/{mount}/role/$role/secret-id)
  echo "$role role_id=$role_id wrapping=$wrapping"
done
"""


def as_shell(mount: str, items: Iterable[Item]) -> str:
    """Return a POSIX shell script that writes `items` with the `bao` or `vault` command.

    Called with "logins" it then fetches one for each role of the broker under `mount`.
    """
    parts = [_HEAD]
    for item in items:
        if item.path.endswith("/config"):
            parts.append(_SETTLE.format(path=item.path))
        condition = _UNLESS_THERE.format(path=item.path) if item.once else ""
        body = json.dumps(item.body, indent=2)
        parts.append(_WRITE.format(title=item.title, condition=condition, path=item.path, body=body))
    parts.append(_LOGINS.format(roles=" ".join(role.value for role in Role), mount=login_mount(mount)))
    return "".join(parts)


def as_hcl(items: Iterable[Item]) -> str:
    """Return the policies among `items` as HCL, each under its name; the rest as comments."""
    parts = []
    for item in items:
        policy = item.body.get("policy")
        if policy:
            parts.append(f"# ---- {item.title}\n{policy}")
        else:
            parts.append(f"# ---- {item.title}: {item.path} {json.dumps(item.body)}\n")
    return "\n".join(parts)
