"""The people of the two years: a team that acts with a delay, and consumers that call the partner all the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import requests
from cryptography import x509

from broker.client.session import Session
from broker.client.session import open as opened
from broker.compose.graph import Broker
from broker.delivery.directory import publishing
from broker.errors import BrokerError, PartnerUnavailableError, RefusedError
from broker.model.account import Account
from broker.model.bundle import Wanted
from broker.model.generation import Closed, SigningRequest, Submission
from broker.model.lease import Caller
from broker.model.letter import Letter
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.pki.reply import read_files
from broker.rotation.receive import ImportOptions, LateReplyError
from tests.chaos.years_partner import BAD, DAY, Contract, Manner, Partner

HOUR: Final = timedelta(hours=1)
APPLICATION: Final = "reporting"
NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass
class Team:
    """The team: it sends by hand, imports replies, promotes, and sets passwords, each some time after it could."""

    broker: Broker
    partner: Partner
    contracts: Mapping[AccountName, Contract]
    by_hand: frozenset[AccountName]  # accounts whose requests and promotions no machine sends or makes
    passwords: dict[tuple[AccountName, int], str] = field(default_factory=dict)  # as they were stored
    manners: dict[AccountName, Manner] = field(default_factory=dict)  # of the last request
    refused: Counter[str] = field(default_factory=Counter)  # errors that a person met, by type

    def looks(self, name: AccountName) -> None:
        """Look at an account now and then, and do what is a person's."""
        self.partner.agenda.after(self.partner.days(0.4, 1.6), partial(self.looks, name))
        account, contract = self.broker.account(name), self.contracts[name]
        if account.breaker or self.passwords.get((name, account.password)) not in contract.passwords:
            self.sets_password(name, contract.passwords[0])
            return
        request = account.open_request
        if request and not request.submissions and name in self.by_hand:
            self.sends(name, request)
        elif account.refused_request and not request:
            self.broker.rotation.draft(name)
        for candidate in filter(account.ends_earlier, account.candidates):
            self.tries(partial(self.broker.rotation.reject, name, candidate.number, "it ends too early"))
            return
        if account.automatic_candidate and (name in self.by_hand or self._is_stuck(account)):
            self.tries(partial(self.broker.rotation.promote, name))

    def sets_password(self, name: AccountName, password: str) -> None:
        """Store a password that the partner has given."""
        after = self.broker.registry.set_secret(name, Secret(password))
        self.passwords[name, after.password] = password

    def sends(self, name: AccountName, request: SigningRequest) -> None:
        """Send the CSR by hand, and record that."""
        submission = Submission(self.broker.clock(), "hand", reference=f"T-{request.number}")
        self.broker.rotation.submit(name, request.number, submission)
        self.arrived(name, request)

    def submits(self, account: Account, request: SigningRequest) -> Submission | None:
        """Send the CSR of an account as a machine, for the scheduler; None if only a person can."""
        if account.name in self.by_hand:
            return None
        self.arrived(account.name, request)
        return Submission(self.broker.clock(), "smtp", message_id=f"<csr-{account.name}-{request.number}@acme.example>")

    def arrived(self, name: AccountName, request: SigningRequest) -> None:
        """Have the partner's people deal with a CSR that reached them."""
        contract, later = self.contracts[name], self.partner.agenda.after
        manner = contract.manners.pop() if contract.manners else self.partner.manner()
        self.manners[name] = manner
        days, answer = self.partner.days, partial(self._answer, name, request)
        is_short = contract.lifetime < 90 * DAY
        match manner:
            case Manner.SLOW:
                later(days(8, 12) if is_short else days(24, 40), answer)
            case Manner.WRONG_KEY | Manner.WRONG_SUBJECT | Manner.WRONG_PURPOSE:
                later(days(0.5, 2), partial(self._bad_answer, name, request, BAD[manner]))
            case Manner.SILENT:
                later(days(8, 10) if is_short else days(23, 30), partial(self._asks_again, name, request))
            case Manner.REFUSED:
                later(days(0.5, 2), partial(self._is_refused, name, request))
            case Manner.NEW_CA:
                later(days(0.5, 2), partial(self._answer, name, request, issuer="new"))
            case Manner.HARD_CUT:
                later(days(0.5, 3), partial(self._answer, name, request, revoke_old="0"))
            case Manner.SUPERSEDED:
                later(days(0.5, 1), partial(self._supersedes, name, request))
            case Manner.SHORT:
                later(days(0.5, 3), partial(self._answer, name, request, lifetime="5d"))
            case _:
                later(days(0.5, 3), answer)

    def _answer(self, name: AccountName, request: SigningRequest, **options: str) -> None:
        """Sign, and have a person import the reply later."""
        reply = self.partner.sign(self.contracts[name], request.csr, **options)
        again = 2 if self.manners.get(name) is Manner.TWICE else 1
        for _ in range(again):
            self.partner.agenda.after(self.partner.days(0.1, 1), partial(self._imports, name, request, reply))

    def _bad_answer(self, name: AccountName, request: SigningRequest, wrong: Mapping[str, str]) -> None:
        reply = self.partner.sign(self.contracts[name], request.csr, **wrong)
        before = self.broker.account(name).generations
        assert not self._imports(name, request, reply), f"{wrong}: a bad reply of {name} was imported"
        assert self.broker.account(name).generations == before
        self.partner.agenda.after(self.partner.days(0.5, 2), partial(self._answer, name, request))

    def _asks_again(self, name: AccountName, request: SigningRequest) -> None:
        if self._is_open(name, request):
            self.contracts[name].manners.append(Manner.PROMPT)
            self.sends(name, request)

    def _is_refused(self, name: AccountName, request: SigningRequest) -> None:
        if self._is_open(name, request):
            self.broker.rotation.close_request(name, Closed.REJECTED, request.number)
            self.contracts[name].manners.append(Manner.PROMPT)

    def _supersedes(self, name: AccountName, request: SigningRequest) -> None:
        if not self._is_open(name, request):
            return
        self.broker.rotation.close_request(name, Closed.SUPERSEDED, request.number)
        self.contracts[name].manners.append(Manner.PROMPT)
        self.sends(name, self.broker.rotation.draft(name))
        late = self.partner.sign(self.contracts[name], request.csr)
        self.partner.agenda.after(self.partner.days(2, 4), partial(self._imports, name, request, late))

    def _is_open(self, name: AccountName, request: SigningRequest) -> bool:
        found = self.broker.account(name).open_request
        return bool(found and found.number == request.number)

    def _imports(self, name: AccountName, request: SigningRequest, reply: bytes) -> bool:
        """Import a reply, with the CAs accepted if the reply has new ones; return whether it was taken."""
        parts = read_files({"reply.zip": reply})
        for accept in ((), self._known_cas()):
            try:
                received = self.broker.rotation.receive(name, parts, ImportOptions(accept, client_id_for=APPLICATION))
            except LateReplyError:
                self.refused["LateReplyError"] += 1
                return False
            except RefusedError as error:
                self.refused[type(error).__name__] += 1
            else:
                return received.generation.number > 0
        return False

    def _known_cas(self) -> Sequence[str]:
        """Return the fingerprints that the partner's people read out on the telephone."""
        described = self.partner.standin.described()
        return str(described["issuing_ca_sha256"]), str(described["server_ca_sha256"])

    def _is_stuck(self, account: Account) -> bool:
        """Return whether a machine gave up on the newest candidate."""
        return bool(account.tries and account.tries[-1].verdict not in ("", "ok"))

    def tries(self, act: Callable[[], object]) -> None:
        """Do it; an error is counted, and the person looks again later."""
        try:
            act()
        except BrokerError as error:
            self.refused[type(error).__name__] += 1


@dataclass
class Mailbox:
    """Where notices arrive. Now and then a mail server fails, before or after it took the letter."""

    clock: Callable[[], datetime]
    dice: Random
    letters: list[tuple[datetime, Letter]] = field(default_factory=list)

    def __call__(self, letter: Letter) -> None:
        """Take a letter."""
        chance = self.dice.random()
        if chance > 0.05:
            self.letters.append((self.clock(), letter))
        if chance < 0.1:
            raise PartnerUnavailableError("the mail server ended the connection")

    def told(self, name: AccountName, *, since: datetime) -> bool:
        """Return whether the team got a notice about an account since then."""
        return any(at >= since and name in {item.account for item in letter.items} for at, letter in self.letters)

    def faults(self) -> Iterator[str]:
        """Yield each event that one recipient got in two letters."""
        told: dict[tuple[str, str], set[str]] = {}
        for _, letter in self.letters:
            for item in letter.items:
                told.setdefault((letter.to, item.key), set()).add(letter.id)
        yield from (f"{to} was told of {event} {len(ids)} times" for (to, event), ids in told.items() if len(ids) > 1)


@dataclass
class Reader:
    """A consumer of one account: a session on a published bundle, and what the partner must think of it."""

    team: Team
    name: AccountName
    logs_in: Callable[[], Secret[str]]  # tokens end by the real clock
    directory: Path
    session: Session | None = None
    serial: str = ""
    not_after: datetime = NEVER
    password: str = ""
    calls: Counter[str] = field(default_factory=Counter)

    def fetches(self, account: Account) -> None:
        """Fetch a bundle of the current generation, publish it, and have the session follow."""
        broker = self.team.broker
        wanted = Wanted(self.name, APPLICATION, HOUR, allow_expired=True)
        granted = broker.issuing.issuer(Caller(self.logs_in())).grant(wanted)
        with publishing(self.directory, granted.bundle, (), broker.clock):
            pass
        if self.session is None:
            self.session = opened(self.directory)
        self.session.follow()
        assert self.session.manifest.generation == granted.bundle.generation
        certificate = x509.load_pem_x509_certificate(granted.bundle.certificate.encode())
        self.serial, self.not_after = f"{certificate.serial_number:x}", certificate.not_valid_after_utc
        self.password = self.team.passwords[self.name, account.generation(granted.bundle.generation).parts.password]

    @property
    def is_over(self) -> bool:
        """Whether the certificate in use is over."""
        return self.not_after < self.team.partner.agenda.clock.now

    def calls_partner(self) -> str:
        """Call the partner; return what is wrong, "" if the partner allows the call and it succeeds."""
        assert self.session is not None
        allowed = self._allowed()
        status = self._status()
        self.calls["answered" if allowed == "" else allowed] += 1
        if allowed == "" and status != "200":
            return f"{self.name}: generation {self.session.manifest.generation} is good, and the answer was {status}"
        if allowed and status == "200":
            return f"{self.name}: the call succeeded, though the partner should refuse it: {allowed}"
        return ""

    def _status(self) -> str:
        assert self.session is not None
        try:
            return str(self.session.get("/fleets", params={"pageSize": 1}).status_code)
        except (BrokerError, requests.RequestException) as error:
            return type(error).__name__

    def _allowed(self) -> str:
        """Return why the partner refuses the set in use, "" if it does not."""
        partner = self.team.partner
        if self.is_over:
            return "expired"
        if self.serial in partner.standin.registry.revoked():
            return "revoked"
        return "" if self.password in self.team.contracts[self.name].passwords else "another password"
