"""Policies of `policies/`, with mount, accounts and rights filled in.

A template is Vault's own HCL with `${mount}`, and `${account}`, `${right}` or `${shared}` in stanzas that are repeated
for each, and left out if there is none.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Template
from typing import Final

from broker.errors import InputError
from broker.model.names import NAME, checked_name
from broker.model.role import Role
from broker.vault import layout

Right = tuple[str, str]  # capability and path

ALL: Final = ("+",)  # every account: one whole segment of a path
BASE: Final = "base"  # the policy that every role has in addition to its own
_RIGHT: Final = re.compile(rf"{layout.RIGHTS}(/{NAME.pattern}){{4}}/{layout.DIRECT}", re.ASCII)
_GRANT: Final = re.compile(r'^path "([^"]+)" +\{ capabilities = \[([^]]+)\]', re.MULTILINE)
_CAPITAL: Final = re.compile(r"[A-Z]")
_FOLDERS: Final = (Path(__file__).parents[1] / "policies", Path(__file__).parents[2] / "policies")  # wheel, checkout


def policy_name(mount: str, name: str) -> str:
    """Return Vault's name for the policy `name` of the broker under `mount`: two brokers may share one Vault.

    No two mounts have a policy in common: no `name` contains a "/", and a ":" marks a capital, which Vault lowers.
    """
    return f"{_CAPITAL.sub(lambda found: f':{found[0].lower()}', mount)}/{name}"


def role_policy(
    role: Role, *, mount: str, accounts: Sequence[str] = ALL, shared: Sequence[str] = (), pki: Sequence[str] = ()
) -> str:
    """Return the HCL of `role`. It may reach the secrets of `accounts`; raise `InputError` for a bad name.

    `shared` names `mount` too if others use it: there the role sets the bounds of the documents that it creates.
    `pki` has the paths where a PKI engine signs for it, such as pki/sign/broker.
    """
    for account in accounts:
        if account not in ALL:
            checked_name(account, "account")
    lists = {"account": accounts, "shared": shared, "pki": pki}
    return _filled(installed(f"{role.value}.hcl"), lists, mount=mount)


def admin_policy(
    mount: str, *, shared: bool = False, jwt_mounts: Sequence[str] = (), issuers: Sequence[str] = ()
) -> str:
    """Return the HCL for who sets the broker up and enrols consumers; `shared` if others use `mount` too.

    `jwt_mounts` are those that set-up makes, `issuers` those where consumers are enrolled.
    """
    names = [role.value for role in Role]
    policies = [policy_name(mount, name) for name in (BASE, *names)]
    lists = {"role": names, "policy": policies, "shared": [mount] if shared else []}
    lists |= {"jwt_mount": list(jwt_mounts), "issuer": list(issuers)}
    prefix = policy_name(mount, "").rstrip("/")
    return _filled(installed("admin.hcl"), lists, mount=mount, prefix=prefix)


def consumer_policy(rights: Sequence[str]) -> str:
    """Return the HCL that gives exactly `rights`, made by `layout.right`."""
    if not rights or not all(_RIGHT.fullmatch(right) for right in rights):
        raise InputError("a consumer's policy names at least one right, and only rights")
    return _filled(installed("consumer.hcl"), {"right": rights})


def rights(policy: str) -> list[Right]:
    """Return the rights that the text of one of our policies grants."""
    return [(name, path) for path, names in _GRANT.findall(policy) for name in re.findall(r"\w+", names)]


def policy_kind(text: str) -> str:
    """Return the words that begin a policy; they are the same in all versions of the broker."""
    return text.lstrip().partition(":")[0]


def _filled(template: str, lists: Mapping[str, Sequence[str]], **constants: str) -> str:
    """Put `constants` into `template`, and repeat a line that names one of `lists` for each of its values."""

    filled = []
    for line in template.splitlines(keepends=True):
        name = next((name for name in lists if f"${{{name}}}" in line), "")
        filled += [Template(line).substitute(constants, **{name: value}) for value in lists.get(name, [""])]
    return "".join(filled)


@cache
def installed(name: str) -> str:
    """Return the text of the file `name` of `policies/`; there are a dozen."""
    for folder in _FOLDERS:
        file = folder / name
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise InputError(f"{name} is missing from this installation", hint="install the package again")
