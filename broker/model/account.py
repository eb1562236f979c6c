"""An account: the one document that says all there is to say about a login at a partner, and holds no secret.

It is a value. `model.changes` makes its successors, and a use-case writes one back under compare-and-set. What must
follow from a change (its evidence, a secret to destroy) is part of the same write, in `outbox` and `doomed_…`, so
that a kill can delay it and never forget it. Keys and passwords lie beside it, numbered and written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from broker.errors import InputError, RefusedError, UnknownNameError
from broker.model.authentication import PASSWORD
from broker.model.certificate import CaSet, CaSetRef, Certificate, CertificateRef
from broker.model.chain import LAST, Entry, Head
from broker.model.duration import part_of
from broker.model.generation import (
    Application,
    Breaker,
    Generation,
    KeyRef,
    Parts,
    SecretRef,
    SigningRequest,
    Try,
    secret_refs,
)
from broker.model.names import AccountName
from broker.model.stage import Stage
from broker.model.subject import Subject

__all__ = ["Account", "Contacts"]


@dataclass(frozen=True, slots=True)
class Contacts:
    """People: who gets the CSR at the partner, and who of ours is told."""

    partner: tuple[str, ...] = ()
    team: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Account:
    """Raise `ValueError` where the parts contradict one another, so that no reader need check again."""

    name: AccountName
    profile: str
    environment: str
    login: str
    base_url: str  # pinned: the only place its secrets may travel to
    subject: Subject
    created_at: datetime
    contacts: Contacts = field(default_factory=Contacts)
    renew_before: str = ""  # "30d" or "20%" of the lifetime before its end; "": as the profile says
    applications: tuple[Application, ...] = ()
    requests: tuple[SigningRequest, ...] = ()
    generations: tuple[Generation, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    anchors: tuple[CaSet, ...] = ()
    issuing: CaSetRef | None = None  # pinned: a reply must chain to these to advance without a person
    trust: CaSetRef | None = None  # what the next generation knows the server by, until one is current
    secrets: Mapping[str, int] = field(default_factory=dict)  # the newest number of each, by name
    tries: tuple[Try, ...] = ()
    breaker: Breaker | None = None
    not_before: datetime | None = None  # the partner asked to be left alone until then
    head: Head = field(default_factory=Head)
    outbox: tuple[Entry, ...] = ()  # happened, not yet in the evidence
    doomed_keys: frozenset[KeyRef] = frozenset()  # to be destroyed
    doomed_secrets: frozenset[SecretRef] = frozenset()

    def __post_init__(self) -> None:
        faults = list(_contradictions(self))
        if faults:
            raise ValueError(f"account {self.name}: {'; '.join(faults)}")

    @property
    def open_request(self) -> SigningRequest | None:
        """The signing request that waits for people, if one does."""
        return next((r for r in self.requests if r.closed is None), None)

    @property
    def current(self) -> Generation | None:
        """What consumers are given."""
        return next((g for g in self.generations if g.stage is Stage.CURRENT), None)

    @property
    def password(self) -> int:
        """The number of the newest password, 0 if there is none."""
        return self.secrets.get(PASSWORD, 0)

    @property
    def candidates(self) -> tuple[Generation, ...]:
        """Candidates, the newest last."""
        return tuple(g for g in self.generations if g.stage is Stage.CANDIDATE)

    @property
    def automatic_candidates(self) -> tuple[Generation, ...]:
        """Candidates that a machine may promote, the newest last: not those that bring a certificate back."""
        return tuple(g for g in self.candidates if not self.reuses_certificate(g))

    @property
    def next_request(self) -> int:
        """The slot of the next key, never used before."""
        kept = {r.number for r in self.requests} | {_slot(g.parts.key) for g in self.generations if g.parts.key}
        return 1 + max(kept, default=0)

    @property
    def next_generation(self) -> int:
        """The number of the next generation."""
        return 1 + max((g.number for g in self.generations), default=0)

    @property
    def next_order(self) -> int:
        """The place of the next move in the order of all."""
        return 1 + max((g.order for g in self.generations), default=0)

    @property
    def keys_in_use(self) -> frozenset[KeyRef]:
        """Keys that must survive. A set with a new password shares its key with the one before it."""
        living = {g.parts.key for g in self.generations if g.stage.living}
        return frozenset(living | {r.key for r in self.requests if r.closed is None}) - {""}

    @property
    def secrets_in_use(self) -> frozenset[SecretRef]:
        """Secrets that must survive: the newest, and those that living generations name."""
        living = (secret_refs(g.parts.secrets) for g in self.generations if g.stage.living)
        return secret_refs(self.secrets).union(*living)

    @property
    def canary_application(self) -> Application:
        """The application whose client_id goes out with a canary; raise `RefusedError` where none has one."""
        known = sorted((a for a in self.applications if a.client_id), key=lambda a: a.rejected_at is not None)
        if known:
            return known[0]
        raise RefusedError(
            f"no application of {self.name} has a client_id yet, and the partner wants one with every request",
            hint=f"broker app set {self.name}/APPLICATION --client-id ID",
        )

    def application(self, name: str) -> Application:
        """Return the application called `name`; raise `UnknownNameError`."""
        for application in self.applications:
            if application.name == name:
                return application
        raise UnknownNameError(f"{self.name} has no application {name}", hint=f"broker app list {self.name}")

    def generation(self, number: int) -> Generation:
        """Return generation `number`; raise `UnknownNameError`."""
        for generation in self.generations:
            if generation.number == number:
                return generation
        raise UnknownNameError(f"{self.name} has no generation {number}", hint=f"broker account show {self.name}")

    def parts_of(self, generation: Generation) -> Parts:
        """Return the whole set of `generation`: that of a candidate as it would be tried now."""
        if self.current is None or (generation.parts.complete and generation.stage is not Stage.CANDIDATE):
            return generation.parts
        return generation.parts.over(self.current.parts)

    def reuses_certificate(self, candidate: Generation) -> bool:
        """Whether `candidate` has a certificate that is current, or was: then a person promotes it, naming it."""
        ref = candidate.parts.certificate
        return bool(ref) and any(
            g.parts.certificate == ref for g in self.generations if g.stage.deliverable and g is not candidate
        )

    def rolled_back(self, generation: Generation) -> bool:
        """Whether the last roll-back displaced `generation`: then a person promotes or retires it, naming it."""
        return bool(generation.stage is Stage.PREVIOUS and self.current and generation.order > self.current.order)

    def request(self, number: int) -> SigningRequest:
        """Return signing request `number`; raise `UnknownNameError`."""
        for request in self.requests:
            if request.number == number:
                return request
        raise UnknownNameError(f"{self.name} has no signing request {number}", hint=f"broker account show {self.name}")

    def answered_only_by(self, candidate: Generation) -> SigningRequest | None:
        """Return the request whose answer is lost if `candidate` is rejected; None if another can still deliver it."""
        kept = {Stage.CANDIDATE, Stage.CURRENT, Stage.PREVIOUS}
        others = (g for g in self.generations if g.number != candidate.number and g.stage in kept)
        if candidate.stage is not Stage.CANDIDATE or any(g.parts.key == candidate.parts.key for g in others):
            return None
        return next((r for r in self.requests if r.key == candidate.parts.key), None)

    def certificate(self, ref: CertificateRef) -> Certificate:
        """Return the certificate a generation refers to."""
        return next(c for c in self.certificates if c.ref == ref)

    def ca_set(self, ref: CaSetRef) -> CaSet:
        """Return the CA set that a generation or a pin refers to."""
        return next(a for a in self.anchors if a.ref == ref)


def _slot(key: KeyRef) -> int:
    return int(key.rpartition(":")[2])


def _contradictions(account: Account) -> Iterable[str]:
    if sum(r.closed is None for r in account.requests) > 1:
        yield "more than one open signing request"
    if sum(g.stage is Stage.CURRENT for g in account.generations) > 1:
        yield "more than one current generation"
    if not _rising(r.number for r in account.requests) or not _rising(g.number for g in account.generations):
        yield "the numbers of its requests or generations do not rise"
    if len({a.name for a in account.applications}) < len(account.applications):
        yield "two applications of one name"
    try:
        part_of(timedelta(days=1), account.renew_before or "1d")
    except InputError as error:
        yield f"its renewal setting: {error.message}"
    yield from _dangling(account)
    if account.doomed_keys & account.keys_in_use or account.doomed_secrets & account.secrets_in_use:
        yield "a secret in use is to be destroyed"
    if not _leads_up(account.outbox, account.head):
        yield "its outbox does not lead up to its head"
    if any(entry.chain != f"accounts/{account.name}" or not 0 < entry.number <= LAST for entry in account.outbox):
        yield "its outbox holds what is no entry of its chain"


def _dangling(account: Account) -> Iterable[str]:
    certificates = {c.ref for c in account.certificates}
    ca_sets = {a.ref for a in account.anchors}
    for generation in account.generations:
        parts = generation.parts
        named = {parts.trust, parts.issuing} - {""}
        if (parts.certificate and parts.certificate not in certificates) or not named <= ca_sets:
            yield f"generation {generation.number} refers to a part that is not there"
        whole = account.parts_of(generation) if generation.stage is Stage.CANDIDATE else parts
        if not whole.complete and (generation.stage is Stage.CANDIDATE or generation.stage.deliverable):
            yield f"generation {generation.number} is not complete"
    if not {account.issuing, account.trust} - {None} <= ca_sets:
        yield "a pin refers to CAs that are not there"


def _leads_up(outbox: tuple[Entry, ...], head: Head) -> bool:
    follows = all(later.before == earlier.hash for earlier, later in pairwise(outbox))
    return not outbox or (follows and Head(outbox[-1].number, outbox[-1].hash) == head)


def _rising(numbers: Iterable[int]) -> bool:
    listed = list(numbers)
    return listed == sorted(set(listed))
