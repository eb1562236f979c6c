"""Snapshots of a mount: read, restore, check and compare them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.chain import Entry, verify
from broker.model.generation import Generation, key_ref, secret_refs
from broker.model.stage import Stage
from broker.vault.connection import Connection
from broker.vault.documents import decoded

__all__ = ["MountSnapshot", "accessors", "fresh", "listing"]


@dataclass(frozen=True, slots=True)
class MountSnapshot:
    """Every document of a mount by its path. None: destroyed, its number taken."""

    documents: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, admin: Connection) -> MountSnapshot:
        """Return what `admin`'s mount holds."""
        return cls({path: _data(admin, path) for path in _paths(admin, "")})

    def restore(self, admin: Connection) -> None:
        """Make the mount hold this and nothing else."""
        now = MountSnapshot.of(admin).documents
        wrong = [path for path in now if path not in self.documents or now[path] != self.documents[path]]
        for path in wrong:
            admin.call("DELETE", f"{admin.settings.mount}/metadata/{path}")
        for path, data in self.documents.items():
            if path in wrong or path not in now:
                admin.write(path, data or {"destroyed": True}, replacing=0)
                if data is None:
                    admin.destroy_all(path)

    @property
    def accounts(self) -> list[Account]:
        """Every account."""
        return [decoded(self._there(path), Account, path) for path in self._under("accounts/")]

    def evidence(self, account: str) -> list[Entry]:
        """Return the stored entries of an account's chain."""
        return [decoded(self._there(path), Entry, path) for path in self._under(f"evidence/accounts/{account}/")]

    def living(self, kind: str, account: str) -> set[int]:
        """Return the slots of `kind` (keys, passwords) whose secret is still there."""
        return {int(path.rpartition("/")[2]) for path in self._under(f"{kind}/{account}/") if self.documents[path]}

    def assert_sound(self, *, finished: bool) -> None:
        """Assert that each secret is referred to, or doomed, and that the evidence is whole.

        Until the command has `finished`, the next slots may hold a key, or a password, that nothing refers to yet.
        """
        for account in self.accounts:
            self._assert_no_orphan(account, finished=finished)
            stored = self.evidence(account.name)
            waiting = [entry for entry in account.outbox if entry.number > len(stored)]
            assert verify(f"accounts/{account.name}", [*stored, *waiting], account.head) == ()
            assert not (finished and account.outbox), f"{account.name} has evidence that is not written"
        names = {account.name for account in self.accounts}
        strangers = [p for k in ("keys/", "passwords/") for p in self._under(k) if p.split("/")[1] not in names]
        assert not strangers, f"secrets of no account: {strangers}"

    def outcome(self, *, again: bool) -> dict[str, Any]:
        """Return a comparable result, without times and random values; with `again` without numbers and ended parts."""
        describe = self._summed_up if again else self._described
        found: dict[str, Any] = {account.name: describe(account) for account in self.accounts}
        found |= {path: self.documents[path] for path in self._under("profiles/")}
        found["signers"] = self._under("signers/")
        found["consumers"] = len(self._under("consumers/"))
        return found

    def _assert_no_orphan(self, account: Account, *, finished: bool) -> None:
        keys = {key_ref(slot) for slot in self.living("keys", account.name)}
        secrets = {f"password:{slot}" for slot in self.living("passwords", account.name)}
        allowed_keys = account.keys_in_use | account.doomed_keys
        allowed = account.secrets_in_use | account.doomed_secrets
        if not finished:
            allowed_keys |= {key_ref(account.next_request)}
            allowed |= secret_refs({PASSWORD: account.password + 1})
        assert account.keys_in_use <= keys, f"{account.name} lost a key"
        assert keys <= allowed_keys, f"{account.name} has an orphan among its keys {keys}"
        assert account.secrets_in_use <= secrets, f"{account.name} lost a password"
        assert secrets <= allowed, f"{account.name} has an orphan among its secrets {secrets}"

    def _described(self, account: Account) -> dict[str, Any]:
        return {
            "account": (account.login, account.base_url, account.subject, account.contacts, account.profile),
            "applications": [(a.name, a.client_id, bool(a.rejected_at)) for a in account.applications],
            "requests": [
                (r.number, r.key, r.closed, [(s.via, s.to, s.reference, bool(s.message_id)) for s in r.submissions])
                for r in account.requests
            ],
            "generations": [
                (g.number, g.stage, account.rolled_back(g), sorted(g.parts.names), *self._shown(account, g))
                for g in account.generations
            ],
            "pins": (bool(account.issuing), bool(account.trust), bool(account.breaker)),
            "password": self._password(account, account.password),
            "keys": sorted(self.living("keys", account.name)),
            "keys ever made": self._under(f"keys/{account.name}/"),
            "evidence": [e.what for e in self.evidence(account.name) if not e.what.startswith("canary-")],
        }

    def _summed_up(self, account: Account) -> dict[str, Any]:
        described = self._described(account)
        over = (Stage.REJECTED, Stage.RETIRED)
        generations = sorted((g[1].value, *g[4:]) for g in described["generations"] if g[1] not in over)
        requests = [submissions for _, _, closed, submissions in described["requests"] if not closed]
        keys = {"keys": len(described["keys"]), "keys ever made": None}
        evidence = sorted(set(described["evidence"]))
        return {**described, **keys, "requests": requests, "generations": generations, "evidence": evidence}

    def _shown(self, account: Account, generation: Generation) -> tuple[str, str]:
        parts = account.parts_of(generation)
        return parts.key, self._password(account, parts.password)

    def _password(self, account: Account, slot: int) -> str:
        return str(self.documents.get(f"passwords/{account.name}/{slot}"))

    def _under(self, folder: str) -> list[str]:
        return sorted(path for path in self.documents if path.startswith(folder))

    def _there(self, path: str) -> Mapping[str, Any]:
        found = self.documents[path]
        assert found is not None, f"{path} is destroyed"
        return found


def _paths(admin: Connection, folder: str) -> list[str]:
    found = []
    for name in admin.list(folder.rstrip("/")):
        found += _paths(admin, f"{folder}{name}") if name.endswith("/") else [f"{folder}{name}"]
    return found


def _data(admin: Connection, path: str) -> Mapping[str, Any] | None:
    stored = admin.read_or_none(path)
    return stored.data if stored else None


def listing(directory: Path) -> list[tuple[str, str, int]]:
    """Return every file below `directory`: path, kind or link's target, mode."""
    found = []
    for folder, folders, files in os.walk(directory):
        for name in sorted(folders + files):
            path = Path(folder) / name
            kind = f"-> {path.readlink()}" if path.is_symlink() else "dir" if path.is_dir() else "file"
            found.append((str(path.relative_to(directory)), kind, stat.S_IMODE(path.lstat().st_mode)))
    return sorted(found)


def fresh(directory: Path) -> Path:
    """Return `directory`, empty."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    return directory


def accessors(admin: Connection) -> set[str]:
    """Return the accessors of all living tokens."""
    found: Any = admin.ask("LIST", "auth/token/accessors")
    return set(found["data"]["keys"])
