"""Enrol a consumer by hand: the commands of `enrolment` as a shell script. It compares nothing with what is there."""

import json
import shlex
from collections.abc import Sequence
from typing import Final

from broker.vault.enrolment import Subject, consumer_role
from broker.vault.policies import consumer_policy, policy_name
from broker.vault.setup import LOGIN

_SCRIPT: Final = """#!/bin/sh
# Enrols the consumer {name}. Run it with VAULT_ADDR (BAO_ADDR) and an administrator's token. It can be run again.
set -eu
vault=${{VAULT_COMMAND:-$(command -v bao || command -v vault)}}

"$vault" policy write {policy} - <<'END-OF-POLICY'
{hcl}END-OF-POLICY

"$vault" write {entity} - <<'END-OF-JSON'
{{"metadata": {{"consumer": "{name}"}}}}
END-OF-JSON

"$vault" write {role} - <<'END-OF-JSON'
{body}
END-OF-JSON

login={login}
entity=$("$vault" read -field=id {entity})
accessor=$("$vault" read -field=accessor sys/auth/{mount})
printf '{{"name": %s, "canonical_id": "%s", "mount_accessor": "%s"}}' "$login" "$entity" "$accessor" |
  "$vault" write identity/entity-alias -
"""


def enrol_script(mount: str, name: str, rights: Sequence[str], subject: Subject | None = None) -> str:
    """Return a POSIX shell script that enrols consumer `name`, with an AppRole or as `subject`."""
    policy = policy_name(mount, consumer_role(name))
    approle = f"auth/{mount}/role/{consumer_role(name)}"
    body = subject.body(policy) if subject else {**LOGIN, "token_policies": [policy]}
    login = (
        shlex.quote(json.dumps(subject.name)) if subject else f'\\"$("$vault" read -field=role_id {approle}/role-id)\\"'
    )
    return _SCRIPT.format(
        name=name,
        policy=policy,
        hcl=consumer_policy(rights),
        entity=f"identity/entity/name/{policy_name(mount, name)}",
        role=subject.role if subject else approle,
        body=json.dumps(body, indent=2),
        login=login,
        mount=subject.issuer.mount if subject else mount,
    )
