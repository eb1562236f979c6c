"""A system whose states (`tests.support.catalogue`) are made once, and set up again in a moment.

For tests that try commands many hundred times: a state is copied into the mount, the command is run in this process,
and what is stored afterwards is compared with what the account says.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from broker.compose.graph import Wiring
from broker.copies import replace
from broker.model.account import Account
from broker.model.chain import verify
from broker.model.finding import Finding
from broker.model.holdings import ConsumerRecord, Holding
from broker.model.names import AccountName
from broker.model.rotation_record import RotationRecord
from broker.model.stage import Stage
from broker.scheduling.incoming import read_file
from broker.scheduling.matching import Match, proposal
from broker.vault.connection import Connection
from broker.vault.consumers import VaultConsumers
from broker.vault.documents import decoded
from broker.vault.enrolment import consumer_role
from broker.vault.evidence import VaultEvidence
from broker.vault.layout import right
from broker.vault.lease_keys import lease_signer
from broker.vault.scheduler_state import VaultRotationRecords
from tests.support.catalogue import ARRIVED, HELD, STATES, Case, filled
from tests.support.console import inside
from tests.support.ended import Ended
from tests.support.outside import OutsideSet, made_outside, zipped
from tests.support.partner import a_csr
from tests.support.sources import BROKER
from tests.support.system import LOGIN, PASSWORD, SUBJECT, System
from tests.support.vault import AppRole, a_consumer, login

LEASE: Final = "5eed" * 8
REPLY: Final = "5eed" * 4
QUESTION: Final = Finding.error("reply.ca", "the certificate is signed by a CA that is not accepted")

__all__ = ["ACCOUNT", "LATER", "LEASE", "SavedStates", "State", "account_faults", "documents_of"]

ACCOUNT: Final = "acme"
LATER: Final = timedelta(minutes=15)  # what a person waits: a try without an answer counts no longer
_LONG: Final = 6 * 60 * 60  # seconds that a token of the consumer's lives: no run takes so long

Document = Mapping[str, Any]
Documents = Mapping[str, Document | None]  # the newest version of each path, None if it is destroyed


@dataclass(frozen=True)
class State:
    """Contents of the mount, and the account as it was some changes ago, which a stale read shows."""

    documents: Documents
    before: Document | None = None


@dataclass
class SavedStates:
    """A system whose states are made when they are first asked for, and set up again in a moment."""

    system: System
    states: dict[str, State] = field(default_factory=dict)
    consumer: AppRole | None = None
    _replies: dict[str, Path] = field(default_factory=dict)  # by the state that each answers

    @functools.cached_property
    def _given(self) -> Path:
        """The directory of the files that lines of the catalogue name."""
        folder = self.system.home / "given"
        folder.mkdir()
        (folder / "good-profile").write_text(own_profile(), encoding="utf-8")
        (folder / "good-password").write_text(PASSWORD, encoding="utf-8")
        (folder / "wrong-password").write_text(f"{PASSWORD}-wrong", encoding="utf-8")
        (folder / "good-csr").write_bytes(a_csr(rsa.generate_private_key(65537, 2048)))
        return folder

    @functools.cached_property
    def outside(self) -> OutsideSet:
        """A set that the team made by hand; the partner knows its certificate."""
        made = made_outside(self.system.partner)
        (self._given / "outside.zip").write_bytes(zipped(made.files))
        return made

    def run(
        self,
        *arguments: str,
        given: bytes = b"",
        address: str = "",
        after: timedelta = timedelta(0),
        wiring: Wiring | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run `broker ARGUMENTS` in this process, with the vault at `address`, on a clock that is `after` ahead."""
        environment = {**self.system.environment, **({"VAULT_ADDR": address} if address else {}), **(changes or {})}
        wiring = wiring or Wiring(clock=lambda: datetime.now(UTC) + after)
        return inside(arguments, home=self.system.home, environment=environment, input=given, wiring=wiring)

    def ok(self, *arguments: str, given: bytes = b"") -> Ended:
        """Run `broker ARGUMENTS`, which must succeed."""
        ended = self.run(*arguments, given=given)
        assert ended.code == 0, f"broker {' '.join(arguments)}: {ended.code}\n{ended.out}\n{ended.err}"
        return ended

    def put(self, name: str) -> None:
        """Make the mount hold state `name` and nothing else."""
        if name not in self.states:
            self._make(name)
        vault, state = self.system.vault.admin, self.states[name]
        now = documents_of(vault)
        wrong = {path for path in now if path not in state.documents or now[path] != state.documents[path]}
        for path in wrong:
            vault.call("DELETE", f"{self.system.vault.settings.mount}/metadata/{path}")
        for path in (path for path in state.documents if path in wrong or path not in now):
            document, stale = state.documents[path], path == f"accounts/{ACCOUNT}" and state.before is not None
            if stale and state.before:
                vault.write(path, state.before, replacing=0)
            vault.write(path, document or {"destroyed": True}, replacing=int(stale))
            if document is None:
                vault.destroy_all(path)

    def reply(self, state: str) -> Path:
        """Return the file with the partner's reply to the open request of `state`; the mount is in any state then."""
        if state not in self._replies:
            self.put(state)
            self._replies[state] = self.system.reply(ACCOUNT).rename(self._given / f"{state}.zip")
        return self._replies[state]

    def begin(self, case: Case) -> None:
        """Make the mount hold what `case` starts from; its reply is there then."""
        if "{reply}" in case.line:
            self.reply(_answered(case.state))
        if "{set}" in case.line:
            assert self.outside.client_id
        self.put(case.state)

    def values(self, state: str) -> Mapping[str, str | Sequence[str]]:
        """Return what is filled into the lines of the catalogue that start from `state`."""
        return {
            "account": ACCOUNT,
            "application": "reporting",
            "lease": LEASE,
            "arrived": f"{ACCOUNT}/{REPLY}",
            "url": self.system.partner.api_url,
            "login": LOGIN,
            "subject": [part for pair in SUBJECT for part in ("--subject", pair)],
            "accept": self.system.accepting(),
            "reply": str(self._replies.get(_answered(state), "")),
            **{name: str(self._given / f"good-{name}") for name in ("profile", "password", "csr")},
            "set": str(self._given / "outside.zip"),
            "wrong": str(self._given / "wrong-password"),
        }

    def _make(self, name: str) -> None:
        """Go through the commands that people type, in separate processes: a test may have patched this one."""
        parent, lines = STATES[name]
        if parent:
            self.put(parent)
        for line in lines:
            if line == HELD:
                self._hold()
                continue
            if line == ARRIVED:
                self._arrive(parent)
                continue
            if "{reply}" in line:
                self.reply(parent)
            if "{set}" in line:
                assert self.outside.client_id
            ended = self.system.run(*filled(line.removeprefix("!"), self.values(parent)))
            assert bool(ended.code) is line.startswith("!"), f"{line}: {ended.code}\n{ended.err}"
        before = self.states[parent].documents.get(f"accounts/{ACCOUNT}") if parent else None
        self.states[name] = State(documents_of(self.system.vault.admin) if parent else {}, before)

    def _hold(self) -> None:
        """Have a consumer hold the lease `LEASE`, for longer than any test takes."""
        holding = Holding(
            AccountName(ACCOUNT), "reporting", "direct", 1, LEASE, datetime.now(UTC), datetime(2100, 1, 1, tzinfo=UTC)
        )
        record = ConsumerRecord("5eed-entity", "batch-7", (holding,))
        VaultConsumers(self.system.vault.admin).change(record.entity, record.name, lambda _: record)
        lease_signer(self.system.vault.admin, datetime.now(UTC))  # the key that signed it

    def _arrive(self, state: str) -> None:
        """Have the partner's reply arrive by mail, as the reply `REPLY`."""
        content, account = self.reply(state).read_bytes(), self.account()
        assert account
        assert account.open_request
        arrived = read_file("reply.zip", content, datetime.now(UTC))
        one = proposal(
            arrived, Match(account, account.open_request.number, by_key=True), (QUESTION,), timedelta(days=7)
        )
        one = replace(one, id=REPLY, source="mail", sender="Desk <desk@partner.example>", subject="Re: your request")
        record = RotationRecord(proposals=(one,))
        VaultRotationRecords(self.system.vault.admin).change(account.name, lambda _: record)

    def account(self) -> Account | None:
        """Return the account as it is stored."""
        stored = self.system.vault.admin.read_or_none(f"accounts/{ACCOUNT}")
        return decoded(stored.data, Account, ACCOUNT) if stored else None

    def holders(self) -> tuple[ConsumerRecord, ...]:
        """Return the records of what consumers hold."""
        return tuple(VaultConsumers(self.system.vault.admin).all().found.values())

    def sent_at(self) -> str:
        """Return a time at which the open request may have been sent, the same each time."""
        account = self.account()
        assert account is not None
        return account.requests[-1].drafted_at.isoformat(timespec="microseconds")

    def settle(self) -> None:
        """Do what the next sweep would."""
        with self.system.broker() as broker:
            broker.settle(AccountName(ACCOUNT))

    def token(self) -> str:
        """Return the file with a fresh token of the consumer."""
        if self.consumer is None:
            rights = [right(profile, "stand-in", ACCOUNT, "reporting") for profile in ("stellantis", "own")]
            self.consumer = a_consumer(self.system.vault.admin, "reader", rights)
            role = f"auth/{self.consumer.mount}/role/{consumer_role('reader')}"
            self.system.vault.admin.call("POST", role, {"token_ttl": _LONG})
        file = self.system.home / "reader.token"
        file.write_text(login(self.system.vault.admin, self.consumer).reveal())
        return str(file)

    def faults(self) -> Iterator[str]:
        """Yield, in words, in what the mount contradicts the settled account."""
        account, vault = self.account(), self.system.vault.admin
        if account is None:
            yield from (f"{path} belongs to no account" for path in _paths(vault) if not path.startswith("signers/"))
            return
        yield from account_faults(vault, AccountName(ACCOUNT))


def account_faults(vault: Connection, name: AccountName) -> Iterator[str]:
    """Yield, in words, in what the mount contradicts the settled account `name`."""
    account = decoded(vault.read(f"accounts/{name}").data, Account, name)
    evidence = VaultEvidence(vault).kept(f"accounts/{name}").entries
    yield from (str(f) for f in verify(f"accounts/{name}", evidence, account.head))
    if account.outbox or account.doomed_keys or account.doomed_secrets:
        yield "it is not settled"
    keys = {f"kv:{n}" for n in _alive(vault, name, "keys")}
    if keys != account.keys_in_use:
        yield f"keys {sorted(keys)} are stored, and {sorted(account.keys_in_use)} in use"
    secrets = {f"password:{n}" for n in _alive(vault, name, "passwords")}
    if secrets != account.secrets_in_use:
        yield f"{sorted(secrets)} are stored, and {sorted(account.secrets_in_use)} in use"
    if len([r for r in account.requests if not r.closed]) > 1:
        yield "two requests are open"
    if len([g for g in account.generations if g.stage is Stage.CURRENT]) > 1:
        yield "two generations are current"
    if account.open_request:
        slot = account.open_request.key.removeprefix("kv:")
        key = vault.read(f"keys/{name}/{slot}").data["value"]
        if key["spki"] != account.open_request.spki:
            yield "the open request is not of its slot's key"


def _alive(vault: Connection, name: AccountName, kind: str) -> list[str]:
    slots = vault.list(f"{kind}/{name}")
    return [slot for slot in slots if any(vault.versions(f"{kind}/{name}/{slot}").values())]


def _answered(state: str) -> str:
    """Return the state whose request the reply that a command in `state` is given answers."""
    return state if state in ("again", "compromised", "own") else "requested"


def documents_of(vault: Connection) -> Documents:
    """Return all that the mount holds."""
    stored = {path: vault.read_or_none(path) for path in _paths(vault)}
    return {path: found.data if found else None for path, found in stored.items()}


def own_profile() -> str:
    """Return a custom profile: a key may be used again, and the partner has a portal."""
    text = (BROKER / "partners" / "profiles" / "stellantis.toml").read_text(encoding="utf-8")
    portal = '[submission]\nurl = "https://portal.partner.example/csr"\n'
    text = text.replace('name = "stellantis"', 'name = "own"').replace("[submission]\n", portal)
    return text.replace("[key]\n", "[key]\nreuse = true\n")


def _paths(vault: Connection, folder: str = "") -> Iterator[str]:
    for name in vault.list(folder):
        path = f"{folder}{name}"
        if name.endswith("/"):
            yield from _paths(vault, path)
        else:
            yield path
