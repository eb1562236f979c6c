"""What somebody else could run or read, where the one at the keyboard may not set Vault up."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from broker.vault import layout
from broker.vault.bounds import DESCRIPTION
from broker.vault.logins import login_mount
from broker.vault.ownership import Ground
from broker.vault.policies import BASE, Role, policy_name
from broker.vault.setup import Item

__all__ = ["as_hcl", "as_shell"]

_HCL_HEAD: Final = """\
# Settings of a whole mount are for one that was made for the broker. Leave them out where others use it.
"""
_HEAD: Final = """#!/bin/sh
# Sets Vault or OpenBao up for the credential broker. Run it with VAULT_ADDR (BAO_ADDR) and a token that may read and
# write mounts and policies. It can be run again: it removes nothing. It ends before it changes anything if it would
# write over what others made.
set -eu
vault=${VAULT_COMMAND:-$(command -v bao || command -v vault)}
"""
# The rules of ownership.py, with what the command of Vault can show
_CHECKS: Final = """
refuse() {{
  echo "$1; nothing was changed" >&2
  echo "{hint}" >&2
  exit 6
}}
roles='{roles}'
mounts=$("$vault" secrets list)
logins=$("$vault" auth list)
policies=$("$vault" policy list)
mounts=$(printf '%s\n' "$mounts" | cut -d' ' -f1) logins=$(printf '%s\n' "$logins" | cut -d' ' -f1)
has() {{ printf '%s\\n' "$1" | grep -Fxq -- "$2"; }}
field() {{ "$vault" read -field="$2" "$1" 2>/dev/null || true; }}
names() {{ "$vault" list "$1" 2>/dev/null | tail -n +3 | tr '\\n' ' ' || true; }}
nested() {{  # MOUNTS PATH: another mount within PATH, or around it
  has "$1" "$2" && return 0
  for other in $1; do
    case $2 in "$other"*) refuse "$other is mounted, so $2 cannot be" ;; esac
    case $other in "$2"*) refuse "$other is mounted, so $2 cannot be" ;; esac
  done
}}
for other in $mounts; do
  case $other in {rights}/*) refuse "$other is mounted where the broker's rights must name nothing" ;; esac
done
nested "$mounts" {mount}/
nested "$logins" {logins}/

shared_logins=no is_set_up=no
if has "$logins" {logins}/; then
  [ "$(field sys/auth/{logins} type)" = approle ] || refuse "auth/{logins}/ is no AppRole"
  if [ "$(field sys/auth/{logins} description)" = '{description}' ]; then
    is_set_up=yes
  else
    for role in $roles; do
      found=$(field auth/{logins}/role/"$role" token_policies | tr -d '[]' | tr ' ' '\\n')
      if has "$found" "{policies}/$role" && has "$found" {policies}/{base}; then is_set_up=yes; fi
    done
    for role in $(names auth/{logins}/role); do
      case " $roles " in
      *" $role "*) [ $is_set_up = yes ] || refuse "auth/{logins}/ has a role of others called $role" ;;
      *) case $is_set_up$role in yesconsumer-*) ;; *) shared_logins=yes ;; esac ;;
      esac
    done
  fi
fi
"""
_OWN: Final = """
if has "$mounts" {mount}/ && [ "$(field sys/mounts/{mount} description)" != '{description}' ]; then
  refuse "broker vault setup did not make {mount}/, and others may use it: $(names {mount}/metadata)"
fi
[ $shared_logins$is_set_up != yesno ] ||
  refuse "broker vault setup did not make auth/{logins}/, and others may use it: $(names auth/{logins}/role)"
"""
_SHARED: Final = """
has "$mounts" {mount}/ || refuse "there is no {mount}/ to adopt"
[ "$(field sys/mounts/{mount} description)" != '{description}' ] ||
  refuse "{mount}/ is the broker's own: print this without --adopt-mount"
case $(field sys/mounts/{mount} type)$(field sys/mounts/{mount} options) in
*kv*version:2*) ;;
*) refuse "{mount}/ is no kv of version 2" ;;
esac
case $(field {mount}/config delete_version_after) in
0s | '') ;;
*) refuse "{mount}/ deletes what is written after a time: keys and evidence would be lost" ;;
esac
"""
_POLICY: Final = """\
if [ $is_set_up = no ] && has "$policies" {name}; then
  case $("$vault" policy read {name}) in
  '{kind}'*) ;;
  *) refuse "the policy {name} is there, and not the broker's" ;;
  esac
fi
"""
_WRITE: Final = """
# {title}
{condition}"$vault" write {path} - <<'END-OF-JSON'
{body}
END-OF-JSON
"""
_UNLESS_THERE: Final = '"$vault" read {path} >/dev/null 2>&1 || '
_UNLESS_SHARED: Final = "[ $shared_logins = yes ] || "
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
for role in $roles; do
  role_id=$("$vault" read -field=role_id auth/{mount}/role/"$role"/role-id)
  wrapping=$("$vault" write -force -wrap-ttl=1h -field=wrapping_token auth/{mount}/role/"$role"/secret-id)
  echo "$role role_id=$role_id wrapping=$wrapping"
done
"""


def as_shell(ground: Ground, items: Iterable[Item]) -> str:
    """Return a POSIX shell script that writes `items` with the `bao` or `vault` command.

    It refuses what `setup.plan` refuses. Called with "logins" it then fetches one for each role of the broker.
    """
    items = tuple(items)
    parts = [_HEAD, _checks(ground), *(_policy_check(item) for item in items if "policy" in item.body)]
    for item in items:
        if item.path.endswith("/config"):
            parts.append(_SETTLE.format(path=item.path))
        body = json.dumps(dict(item.body), indent=2)
        parts.append(_WRITE.format(title=item.title, condition=_condition(item), path=item.path, body=body))
    parts.append(_LOGINS.format(mount=login_mount(ground.mount)))
    return "".join(parts)


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


def _checks(ground: Ground) -> str:
    mount = ground.mount
    hint = f"use a mount of the broker's own: BROKER_MOUNT={ground.free} broker vault setup --print sh"
    if ground.is_ours:
        hint += "; to share this one: broker vault setup --print sh --adopt-mount"
    return (_CHECKS + (_OWN if ground.is_ours else _SHARED)).format(
        mount=mount,
        logins=login_mount(mount),
        roles=" ".join(role.value for role in Role),
        rights=layout.RIGHTS,
        base=BASE,
        policies=policy_name(mount, BASE).removesuffix(f"/{BASE}"),
        description=DESCRIPTION,
        hint=hint,
    )


def _policy_check(item: Item) -> str:
    kind = str(item.body["policy"]).partition(":")[0]
    return _POLICY.format(name=item.path.removeprefix("sys/policies/acl/"), kind=kind)


def _condition(item: Item) -> str:
    if item.once:
        return _UNLESS_THERE.format(path=item.path)
    return _UNLESS_SHARED if item.path.endswith("/tune") else ""
