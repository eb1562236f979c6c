"""An independent auditor: what Vault's own audit log and its raw documents say of a broker that was run.

    python -m tests.support.auditor --mount MOUNT --log audit.log --documents documents.json [--grants policies]

It proves that each role made only the requests of its row in the matrix, that consumers made none, that no grant was
left unused, and that each account is what its evidence tells. It imports nothing of the broker. One line a finding,
exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.independent_replay import faults_of, leases_in
from tests.support.matrix import Matrix

__all__ = ["Grant", "Request", "audited", "grants_in", "main", "outside", "requests_in", "unused"]

_STANZA: Final = re.compile(r'^path "(?P<path>[^"]+)" +\{ capabilities = \[(?P<capabilities>[^]]+)\] \}$', re.MULTILINE)
_UNMEASURED: Final = ("admin", "consumer")  # no role; a right is asked about by sys/capabilities, and never requested
_OWN_TOKEN: Final = ("auth/token/lookup-self", "auth/token/renew-self", "auth/token/revoke-self")


@dataclass(frozen=True, slots=True)
class Request:
    """A request that Vault answered. `role` is "" for who is neither a role nor a consumer of this broker."""

    role: str
    operation: str
    path: str
    allowed: bool

    def __str__(self) -> str:
        return f"{self.role or 'unknown'}: {self.operation} {self.path}{'' if self.allowed else ' (denied)'}"


@dataclass(frozen=True, slots=True)
class Grant:
    """One capability of one stanza of a policy. `path` may hold "+"; `role` is "base" for what every role has."""

    role: str
    operation: str
    path: str

    def used_by(self, request: Request) -> bool:
        """Say whether `request` was made by this right."""
        pattern = re.escape(self.path).replace(r"\+", "[^/]+")
        return (
            request.allowed
            and request.operation == self.operation
            and (self.role in ("base", request.role))
            and re.fullmatch(pattern, request.path) is not None
        )


def requests_in(log: Iterable[str], mount: str, roles: Iterable[str]) -> Iterator[Request]:
    """Yield the requests of Vault's audit log, but for logins and what needs no token, as they were answered."""
    known = frozenset(roles)
    for line in log:
        entry = json.loads(line)
        request, auth = entry["request"], entry.get("auth") or {}
        is_login = re.fullmatch(rf"auth/{re.escape(mount)}(-jwt/[^/]+)?/login", request["path"])
        if entry["type"] != "response" or is_login or not auth.get("policies"):
            continue
        named = {policy.removeprefix(f"{mount}/") for policy in auth["policies"] if policy.startswith(f"{mount}/")}
        whose = sorted(name for name in named if name in known or name.startswith("consumer-"))
        denied = "permission denied" in entry.get("error", "")
        yield Request("+".join(whose), request["operation"], request["path"], not denied)


def outside(requests: Iterable[Request], matrix: Matrix, mount: str) -> Iterator[str]:
    """Yield requests that no role should have sent.

    A denied update is no fault of who may create: which of the two a write is, Vault alone knows.
    """
    for request in requests:
        if request.role.startswith("consumer-"):
            if request.path not in _OWN_TOKEN:
                yield f"a consumer asked Vault itself: {request}"
        elif "+" in request.role:
            yield f"one token has the rights of two: {request}"
        elif request.role and not _in_its_row(request, matrix, mount):
            yield f"outside its row: {request}"
        elif not request.role and request.path.startswith(f"{mount}/") and request.path != f"{mount}/config":
            yield f"past the broker: {request}"


def _in_its_row(request: Request, matrix: Matrix, mount: str) -> bool:
    if request.path == f"sys/internal/ui/mounts/{mount}":
        return True  # Vault answers it to every token with a right below the mount: no policy grants it
    if request.path == "auth/token/lookup":
        return matrix.allows(
            request.role, "update", request.path, mount
        )  # Vault denies it for a token it does not know
    if request.operation == "update" and not request.allowed:
        return matrix.allows(request.role, "create", request.path, mount)
    return request.allowed and matrix.allows(request.role, request.operation, request.path, mount)


def grants_in(folder: Path, mount: str) -> Iterator[Grant]:
    """Yield every grant of the policies in `folder`; raise `ValueError` if a line is neither stanza nor comment.

    Stanzas of a shared mount, and of a PKI engine, are left out: they are part of a policy only if that is configured.
    """
    for file in sorted(folder.glob("*.hcl")):
        text = re.sub(r'^#.*$|^\s*$|^path "\$\{(?:shared|pki)\}.*$', "", file.read_text(), flags=re.MULTILINE)
        if _STANZA.sub("", text).strip():
            raise ValueError(f"{file.name} has more in it than stanzas of one line")
        for stanza in _STANZA.finditer(text) if file.stem not in _UNMEASURED else ():
            path = stanza["path"].replace("${mount}", mount).replace("${account}", "+")
            for capability in re.findall(r"\w+", stanza["capabilities"]):
                yield Grant(file.stem, capability, path)


def unused(grants: Iterable[Grant], requests: Sequence[Request]) -> Iterator[str]:
    """Yield the grants that no request needed."""
    for grant in grants:
        if grant.operation == "create" and grant.path.endswith("/data/changes"):
            continue  # it is created once in a mount, by one of two roles
        if not any(grant.used_by(request) for request in requests):
            yield f"never used: {grant.role} may {grant.operation} {grant.path}"


def audited(documents: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the accounts. `documents` are KV's, raw, by their paths below the mount."""
    issued: dict[str, list[Any]] = {}
    chains_of: dict[str, list[Any]] = {}
    for path, document in sorted(documents.items()):
        kind, _, rest = path.removeprefix("evidence/").partition("/")
        if path.startswith("evidence/") and kind in ("accounts", "issued"):
            chains = chains_of if kind == "accounts" else issued
            chains.setdefault(rest.partition("/")[0], []).append(_value(document))
    leases = leases_in(issued)
    accounts = {p.removeprefix("accounts/"): _value(d) for p, d in documents.items() if p.startswith("accounts/")}
    for name, account in sorted(accounts.items()):
        yield from faults_of(name, account, chains_of.pop(name, []), leases)
    for name in chains_of:
        yield f"{name}: there is evidence of it, and no account"


def _value(document: Any) -> Any:
    """Return the value, which a large document keeps as one text."""
    return document["value"] if "value" in document else json.loads(document["text"])


def main(arguments: Sequence[str]) -> int:
    """Print what is wrong; return 1 if something is."""
    parser = argparse.ArgumentParser(prog="auditor")
    parser.add_argument("--mount", required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--grants", type=Path, help="also say which grants of these policies were never used")
    given = parser.parse_args(arguments)
    matrix = Matrix.load()
    requests = list(requests_in(given.log.read_text().splitlines(), given.mount, matrix.roles))
    findings = [*outside(requests, matrix, given.mount), *audited(json.loads(given.documents.read_text()))]
    if given.grants:
        findings += unused(grants_in(given.grants, given.mount), requests)
    if not requests or not any(request.role for request in requests):
        findings.append("no role made a request: is this the log of another broker?")
    for finding in sorted(set(findings)):
        sys.stdout.write(f"{finding}\n")
    sys.stderr.write(f"{len(requests)} requests, {len(findings)} findings\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
