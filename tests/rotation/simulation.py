"""An in-memory simulation of Vault and the partner, with a fault at a chosen write."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from broker.copies import replace
from broker.errors import ConflictError, UnknownNameError, VaultUnavailableError
from broker.model.account import Account
from broker.model.certificate import Spki
from broker.model.chain import Entry, verify
from broker.model.generation import KeyRef, Parts, SecretRef, key_ref, secret_refs
from broker.model.history import account_state, fold
from broker.model.holdings import ConsumerRecord, held
from broker.model.lease import SKEW
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.subject import KeyRules, Subject
from broker.model.verdict import CanaryResult, Verdict
from broker.partners import catalogue
from broker.partners.profile import Profile
from broker.rotation.leases import Leases
from broker.rotation.ports import Version, Versioned
from broker.rotation.registry import Registry
from broker.rotation.rotation import Rotation
from broker.vault.documents import decoded, encoded
from tests.support.accounts import BY, MZP, NOW

__all__ = ["Fault", "Killed", "Simulation"]


class Killed(BaseException):
    """Not an `Exception`: no handler of ours may survive it."""


class Fault(Enum):
    """A fault of one write. The first four end the command; the last one must be settled by reading."""

    KILLED_BEFORE = "killed before the write"
    KILLED_AFTER = "killed after the write"
    UNAVAILABLE = "the write never arrives"
    ANSWER_LOST = "the write lands, the answer does not"
    SENT_TWICE = "the answer is lost, the write is sent again, and meets itself as a conflict"

    @property
    def ends_the_command(self) -> bool:
        """Return whether the fault ends the command."""
        return self is not Fault.SENT_TWICE


@dataclass
class Simulation:
    """All stores of one account, the partner, and a clock.

    At write `at`, counted from 1, `meanwhile` runs first and `fault` befalls it. A slot that was destroyed stays
    taken, as in Vault.
    """

    documents: dict[AccountName, tuple[int, str]] = field(default_factory=dict)
    older: dict[tuple[AccountName, int], Account] = field(default_factory=dict)  # and newest: all that was written
    kept: dict[KeyRef | SecretRef, str | None] = field(default_factory=dict)  # None: destroyed
    evidence: dict[int, Entry] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    records: dict[str, ConsumerRecord] = field(default_factory=dict)
    verdict: Verdict = Verdict.OK
    now: datetime = NOW
    logins: list[int] = field(default_factory=list)
    logins_before: int = 0
    writes: list[str] = field(default_factory=list)
    at: int = 0
    fault: Fault | None = None
    meanwhile: Callable[[], object] | None = None

    def branch(
        self, *, at: int = 0, fault: Fault | None = None, meanwhile: Callable[[], object] | None = None
    ) -> Simulation:
        """Return a separate sim that begins in this one's state; writes and logins are counted from here."""
        return replace(
            self,
            documents=dict(self.documents),
            older=dict(self.older),
            kept=dict(self.kept),
            evidence=dict(self.evidence),
            records=dict(self.records),
            logins=[],
            logins_before=self.logins_before + len(self.logins),
            writes=[],
            at=at,
            fault=fault,
            meanwhile=meanwhile,
        )

    # -- ports

    def read(self, name: AccountName) -> Versioned:
        if name not in self.documents:
            raise UnknownNameError(f"there is no account {name}")
        version, text = self.documents[name]
        return Versioned(_account(text), Version(version))

    def write(self, account: Account, replacing: Version) -> None:
        with self.writing("account"):
            version = self.documents[account.name][0] if account.name in self.documents else 0
            if replacing != version:
                raise ConflictError("changed")
            self.documents[account.name] = (version + 1, json.dumps(encoded(account)))
            self.older[account.name, version + 1] = account

    def landed(self, account: Account, replacing: Version) -> bool:
        return self.older.get((account.name, replacing + 1)) == account

    def names(self) -> Iterator[AccountName]:
        return iter(sorted(self.documents))

    def append(self, entry: Entry) -> None:
        with self.writing("evidence", again_is_no_error=True):
            assert self.evidence.setdefault(entry.number, entry) == entry, "the chain forked"

    def canary(self, account: Account, parts: Parts) -> Callable[[], CanaryResult]:
        assert parts.complete
        self.secret(parts.key)
        for ref in secret_refs(parts.secrets):
            self.secret(ref)

        def send() -> CanaryResult:
            self.logins.append(self.account.tries[-1].generation)
            assert self.logins_before + len(self.logins) <= self.tries_noted, "a login the account knows nothing of"
            return CanaryResult(self.verdict, wait=timedelta(hours=1) if self.verdict is Verdict.QUOTA else None)

        return send

    def stragglers(self, name: AccountName, generation: int) -> frozenset[str]:
        return self.held

    def clock(self) -> datetime:
        return self.now

    @property
    def keys(self) -> _Keys:
        """The port `Keys`."""
        return _Keys(self)

    @property
    def secrets(self) -> _Secrets:
        """The port `Secrets`."""
        return _Secrets(self)

    # -- use-cases

    def rotation(self, by: str = BY, **ports: Any) -> Rotation:
        """Return the rotator's use-cases on this sim, without settling; `ports` replaces some."""
        given: dict[str, Any] = {
            "keys": self.keys,
            "canary": self.canary,
            "stragglers": self.stragglers,
        }
        given |= ports
        return Rotation(self, _settle_nothing, self.clock, by, given.pop("profile", _profile), **given)

    def registry(self, by: str = BY) -> Registry:
        """Return the operator's use-cases on this sim, without settling."""
        return Registry(self, _settle_nothing, self.clock, by, self.secrets)

    def leases(self, by: str = BY) -> Leases:
        """Return the operator's use-case for leases on this sim, without settling."""
        records = self.records
        return Leases(
            *(self, _settle_nothing, self.clock, by),
            consumers=_Consumers(self),
            held=lambda which: held(records.values(), self.now - SKEW, which),
        )

    # -- what tests ask

    @property
    def account(self) -> Account:
        """The account as it is stored."""
        return self.read(MZP).account

    @property
    def tries_noted(self) -> int:
        """The number of canaries in the account's evidence, stored or not."""
        return sum(entry.what == "canary-sent" for entry in self.whole_chain())

    def whole_chain(self) -> list[Entry]:
        """Return all entries: the stored ones, and those still in the outbox."""
        waiting = [e for e in self.account.outbox if e.number not in self.evidence]
        return [*(self.evidence[n] for n in sorted(self.evidence)), *waiting]

    def secret(self, ref: KeyRef | SecretRef) -> str:
        """Return what is kept under `ref`; using a destroyed secret is an error of the caller."""
        kept = self.kept[ref]
        assert kept is not None, f"{ref} is destroyed, and was to be used"
        return kept

    def living_keys(self) -> set[KeyRef]:
        """Return the names of the keys that are not destroyed."""
        return {KeyRef(ref) for ref, kept in self.kept.items() if kept is not None and ref.startswith("kv:")}

    def living_secrets(self) -> set[SecretRef]:
        """Return the names of the secrets that are not destroyed."""
        return {SecretRef(ref) for ref, kept in self.kept.items() if kept is not None and not ref.startswith("kv:")}

    def password(self, number: int) -> str | None:
        """Return the text of password `number`, None if it is destroyed."""
        return self.kept[SecretRef(f"password:{number}")]

    def assert_sound(self) -> None:
        """Assert that nothing is lost, doubled or without evidence, wherever the run stopped."""
        account, keys, secrets = self.account, self.living_keys(), self.living_secrets()
        assert verify(f"accounts/{account.name}", self.whole_chain(), account.head) == ()
        assert fold(self.whole_chain()) == account_state(account)
        assert account.keys_in_use <= keys
        assert account.secrets_in_use <= secrets
        assert keys <= account.keys_in_use | account.doomed_keys | {key_ref(account.next_request)}
        passed_over = {ref for ref in secrets if int(ref.rpartition(":")[2]) > account.password}
        assert secrets <= account.secrets_in_use | account.doomed_secrets | passed_over

    # -- how writes fail

    @contextmanager
    def writing(self, what: str, *, again_is_no_error: bool = False) -> Iterator[None]:
        """Surround one write: every write of ours passes here, is counted, and may go wrong."""
        self.writes.append(what)
        due = len(self.writes) == self.at
        if due and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        fault = self.fault if due else None
        if fault is Fault.KILLED_BEFORE:
            raise Killed
        if fault is Fault.UNAVAILABLE:
            raise VaultUnavailableError("no answer")
        yield
        if fault is Fault.KILLED_AFTER:
            raise Killed
        if fault is Fault.ANSWER_LOST:
            raise VaultUnavailableError("no answer")
        if fault is Fault.SENT_TWICE and not again_is_no_error:
            raise ConflictError("it is there already")

    def create(self, what: str, ref: KeyRef | SecretRef, value: str) -> None:
        """Store a secret where nothing ever was."""
        with self.writing(what):
            if ref in self.kept:
                raise ConflictError(f"{ref} is there, or was")
            self.kept[ref] = value

    def destroy(self, what: str, ref: KeyRef | SecretRef) -> None:
        """Destroy a secret; its slot stays taken."""
        with self.writing(what, again_is_no_error=True):
            self.kept[ref] = None


def _settle_nothing(name: AccountName) -> None:
    """Leave what follows to the step "settle"."""


def _profile(account: Account) -> Profile:
    return catalogue.builtin("stellantis")


@functools.lru_cache(4096)
def _account(text: str) -> Account:
    return decoded(json.loads(text), Account, "account")


@dataclass
class _Consumers:
    sim: Simulation

    def change(self, entity: str, name: str, change: Callable[[ConsumerRecord], ConsumerRecord]) -> ConsumerRecord:
        with self.sim.writing("consumer"):
            self.sim.records[entity] = change(self.sim.records.get(entity, ConsumerRecord(entity, name)))
        return self.sim.records[entity]


@dataclass
class _Keys:
    sim: Simulation

    def ensure(self, account: AccountName, slot: int, rules: KeyRules) -> tuple[KeyRef, Spki]:
        ref = key_ref(slot)
        if ref not in self.sim.kept:
            with suppress(ConflictError):  # adopt what another made, as the adapter does
                self.sim.create("key", ref, f"key {account}/{slot}")
        if self.sim.kept[ref] is None:
            raise UnknownNameError(f"{ref} is destroyed")
        return ref, Spki(hashlib.sha256(self.sim.secret(ref).encode()).hexdigest())

    def keep(self, account: AccountName, slot: int, key: Secret[bytes]) -> tuple[KeyRef, Spki]:
        raise NotImplementedError  # `tests.cli.test_import` imports into a real Vault

    def sign_request(self, account: AccountName, key: KeyRef, subject: Subject, rules: KeyRules) -> str:
        return f"csr of {subject} by {self.sim.secret(key)}"

    def destroy(self, account: AccountName, key: KeyRef) -> None:
        self.sim.destroy("destroy key", key)


@dataclass
class _Secrets:
    sim: Simulation

    def store(self, account: AccountName, ref: SecretRef, secret: Secret[str]) -> None:
        self.sim.create("password", ref, secret.reveal())

    def destroy(self, account: AccountName, ref: SecretRef) -> None:
        self.sim.destroy("destroy password", ref)
