"""An account: one document with everything about a login at a partner except its secrets.

It is a value. `model.changes` makes its successors, and a use-case writes one back under compare-and-set. The evidence
of a change and the secrets it makes obsolete are part of the same write, in `outbox` and `doomed_…`, so that a kill
delays them but loses none. Keys and secrets are stored beside it, numbered and written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Self, TypeVar

from msgspec import Struct, field

from broker.copies import replace
from broker.errors import InputError, RefusedError, UnknownNameError
from broker.model.authentication import PASSWORD
from broker.model.certificate import CaSet, CaSetRef, Certificate, CertificateRef, Spki
from broker.model.chain import LAST, Entry, Head
from broker.model.duration import part_of
from broker.model.generation import (
    Application,
    Breaker,
    Closed,
    Generation,
    Halt,
    KeyRef,
    Parts,
    PromotionMode,
    RenewalMode,
    SecretRef,
    SigningRequest,
    Snooze,
    Try,
    replaced_ids,
    secret_refs,
)
from broker.model.names import AccountName, guess
from broker.model.password_rotation import PasswordRotation
from broker.model.stage import Stage
from broker.model.subject import Subject

T = TypeVar("T")


class Contacts(Struct, frozen=True):
    """Mail addresses: of the partner, for the CSR, and of our team, to notify."""

    partner: tuple[str, ...] = ()
    team: tuple[str, ...] = ()


class Account(Struct, frozen=True):
    """An account. Raise `ValueError` if its parts contradict one another, so that no reader checks again."""

    name: AccountName
    profile: str
    environment: str
    login: str
    base_url: str  # pinned: its secrets are sent nowhere else
    subject: Subject
    created_at: datetime
    contacts: Contacts = field(default_factory=Contacts)
    renew_before: str = ""  # "30d" or "20%" of the lifetime before its end; "": as the profile says
    renewal: RenewalMode = RenewalMode.AUTO
    promotion: PromotionMode = PromotionMode.MANUAL
    submit_via: str = ""  # a channel; "": as the profile says
    language: str = ""  # of mails to the partner; "": as the profile says
    snoozed: Snooze | None = None  # renewal starts later than it is due; over by itself
    applications: tuple[Application, ...] = ()
    requests: tuple[SigningRequest, ...] = ()
    generations: tuple[Generation, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    anchors: tuple[CaSet, ...] = ()
    issuing: CaSetRef | None = None  # pinned: a certificate must chain to these
    trust: CaSetRef | None = None  # verifies the server in the next generation
    secrets: Mapping[str, int] = field(default_factory=dict)  # the newest number of each, by name
    tries: tuple[Try, ...] = ()
    breaker: Breaker | None = None
    not_before: datetime | None = None  # the partner asked us to back off until then
    password_rotation: PasswordRotation | None = None  # a change of the password that people work on
    suspended: Halt | None = None  # nothing is issued; rotation goes on
    removed: Halt | None = None  # only its evidence is left, and its name is never given again
    head: Head = field(default_factory=Head)
    outbox: tuple[Entry, ...] = ()  # not yet in the evidence
    doomed_keys: frozenset[KeyRef] = frozenset()  # to be destroyed
    doomed_secrets: frozenset[SecretRef] = frozenset()

    def __post_init__(self) -> None:
        faults = list(_contradictions(self))
        if faults:
            raise ValueError(f"account {self.name}: {'; '.join(faults)}")

    @property
    def open_request(self) -> SigningRequest | None:
        """The signing request that is not closed, if there is one."""
        for request in self.requests:  # loops here and in `current`, as both are asked for many times a plan
            if request.closed is None:
                return request
        return None

    @property
    def refused_request(self) -> SigningRequest | None:
        """The newest signing request, if the partner's people refused it and none is open."""
        newest = self.requests[-1] if self.requests else None
        return newest if newest and newest.closed is Closed.REJECTED else None

    @property
    def current(self) -> Generation | None:
        """The generation that consumers are given."""
        for generation in self.generations:
            if generation.stage is Stage.CURRENT:
                return generation
        return None

    @property
    def password(self) -> int:
        """The number of the newest password, 0 if there is none."""
        return self.secrets.get(PASSWORD, 0)

    @property
    def living(self) -> tuple[Generation, ...]:
        """The generations whose secrets must be kept."""
        return () if self.removed else tuple(g for g in self.generations if g.stage.living)

    @property
    def candidates(self) -> tuple[Generation, ...]:
        """Candidates, the newest last."""
        return tuple(g for g in self.generations if g.stage is Stage.CANDIDATE)

    @property
    def automatic_candidate(self) -> Generation | None:
        """The newest candidate that a machine may promote: one with a certificate that was never current."""
        for generation in reversed(self.generations):
            if generation.stage is Stage.CANDIDATE and not self.reuses_certificate(generation):
                return generation
        return None

    @property
    def compromise(self) -> Halt | None:
        """When and how people reported that others know the key of `compromised`."""
        victim = self.compromised
        return self.compromise_of(victim.parts.key) if victim else None

    @property
    def next_request(self) -> int:
        """The number of the next request and the slot of its key, never used before."""
        keys = (g.parts.key for g in self.generations if g.parts.key)
        return 1 + max([*(r.number for r in self.requests), *(int(k.rpartition(":")[2]) for k in keys)], default=0)

    @property
    def next_generation(self) -> int:
        """The number of the next generation."""
        return 1 + max((g.number for g in self.generations), default=0)

    @property
    def next_order(self) -> int:
        """The place of the next move in the order of moves."""
        return 1 + max((g.order for g in self.generations), default=0)

    @property
    def keys_in_use(self) -> frozenset[KeyRef]:
        """Keys that must be kept. Generations with the same certificate share its key."""
        return frozenset({g.parts.key for g in self.living} | {r.key for r in self.requests if r.closed is None}) - {""}

    @property
    def secrets_in_use(self) -> frozenset[SecretRef]:
        """Secrets that must be kept: the newest, and those of living generations."""
        newest = secret_refs({} if self.removed else self.secrets)
        return newest.union(*(secret_refs(g.parts.secrets) for g in self.living))

    @property
    def canary_application(self) -> Application:
        """The application whose client_id is sent with a canary; raise `RefusedError` if none has one."""
        known = sorted((a for a in self.applications if a.client_id), key=lambda a: a.rejected_at is not None)
        if known:
            return known[0]
        first = next((f"broker app set {self.name}/{a.name} --client-id ID" for a in self.applications), "")
        raise RefusedError(
            f"no application of {self.name} has a client_id yet, and the partner requires one with every request",
            hint=first or f"broker app add {self.name}/APPLICATION --client-id ID",
        )

    @property
    def client_ids(self) -> dict[str, str]:
        """The client_ids that consumers are given, by application."""
        return {a.name: a.client_id for a in self.applications if a.client_id}

    def asked_with(self, parts: Parts) -> tuple[Application, ...]:
        """Return the applications whose client_ids are sent with a canary of `parts`: those with another one there."""
        changed = replaced_ids(self.client_ids, parts.client_ids)
        return tuple(Application(n, parts.client_ids[n]) for n in changed) or (self.canary_application,)

    def kept(self) -> Self:
        """Return the account itself; raise `RefusedError` if it was removed."""
        if self.removed:
            raise RefusedError(
                f"account {self.name} was removed on {self.removed.at:%F %TZ}: {self.removed.reason}",
                hint=f"its name is not given again: choose another; broker evidence show {self.name} shows its history",
            )
        return self

    def served(self) -> Self:
        """Return the account itself; raise `RefusedError` if it was removed, or if it is suspended.

        Callers of the service see the error, so the reason, which a person wrote for colleagues, is not in it.
        """
        if self.removed:
            raise RefusedError(
                f"account {self.name} was removed on {self.removed.at:%F %TZ}",
                hint=f"broker account show {self.name} shows why",
            )
        if self.suspended:
            raise RefusedError(
                f"account {self.name} is suspended since {self.suspended.at:%F %TZ}",
                hint=f"broker account resume {self.name} ends it; broker account show {self.name} shows why",
            )
        return self

    def sharing(self, application: Application) -> tuple[str, ...]:
        """Return the other applications with the client_id of `application`."""
        known, client_id = self.client_ids, application.client_id
        return tuple(name for name in known if client_id == known[name] and name != application.name)

    def application(self, name: str) -> Application:
        """Return the application called `name`; raise `UnknownNameError`."""
        found = next((a for a in self.applications if a.name == name), None)
        if found:
            return found
        meant = guess(name, [a.name for a in self.applications])
        raise UnknownNameError(f"{self.name} has no application {name}", hint=f"{meant}broker app list {self.name}")

    def generation(self, number: int) -> Generation:
        """Return generation `number`; raise `UnknownNameError`."""
        found = (g for g in self.generations if g.number == number)
        return _first(found, f"{self.name} has no generation {number}", f"broker account show {self.name}")

    def parts_of(self, generation: Generation) -> Parts:
        """Return the complete parts of `generation`; those of a candidate as it would be tried now."""
        whole = generation.parts.complete and generation.stage is not Stage.CANDIDATE
        current = None if whole else self.current
        return generation.parts.over(current.parts) if current else generation.parts

    def brought_back(self, generation: Generation) -> Parts:
        """Return the parts that a roll-back to `generation` brings: its certificate, and client_ids other than now."""
        known = generation.parts.client_ids
        ids = {name: known[name] for name in replaced_ids(self.client_ids, known)}
        return replace(generation.parts.certified, client_ids=ids)

    def reuses_certificate(self, candidate: Generation) -> bool:
        """Return whether `candidate` has a certificate that is or was current: it is promoted only by its number."""
        others = (g.parts.certificate for g in self.generations if g.stage.deliverable and g is not candidate)
        return bool(candidate.parts.certificate) and candidate.parts.certificate in others

    def rolled_back(self, generation: Generation) -> bool:
        """Return whether the last roll-back displaced `generation`: it is promoted or retired only by its number."""
        return bool(generation.stage is Stage.PREVIOUS and self.current and generation.order > self.current.order)

    def request(self, number: int) -> SigningRequest:
        """Return signing request `number`; raise `UnknownNameError`."""
        found = (r for r in self.requests if r.number == number)
        return _first(found, f"{self.name} has no signing request {number}", f"broker account show {self.name}")

    def request_of(self, spki: Spki) -> SigningRequest | None:
        """Return the newest request for the key `spki` that is open or was answered, None if there is none."""
        found = (r for r in reversed(self.requests) if r.spki == spki and r.closed in (None, Closed.ANSWERED))
        return next(found, None)

    def has_key(self, spki: Spki) -> bool:
        """Return whether the account keeps the key `spki`: for a living generation, or an open request."""
        return any(r.spki == spki and r.key in self.keys_in_use for r in self.requests)

    def copies_of(self, number: int) -> frozenset[str]:
        """Return who has copies of the key of generation `number` outside, as far as people have noted it."""
        key = self.parts_of(self.generation(number)).key
        return frozenset(holder for r in self.requests if r.key == key for holder in r.held_by)

    def answered_only_by(self, candidate: Generation) -> SigningRequest | None:
        """Return the request whose answer is lost if `candidate` is rejected; None if another generation has it too."""
        wanted, usable = candidate.parts.certificate, {Stage.CANDIDATE, Stage.CURRENT, Stage.PREVIOUS}
        certificates = [g.parts.certificate for g in self.generations if g.stage in usable]
        if candidate.stage is not Stage.CANDIDATE or certificates.count(wanted) > 1:
            return None
        return next((r for r in reversed(self.requests) if r.key == candidate.parts.key), None)

    def ends_earlier(self, candidate: Generation) -> bool:
        """Return whether the certificate of `candidate` ends before the current one, which nobody must get rid of."""
        if self.current is None or not candidate.parts.certificate or self.compromise_of(self.current.parts.key):
            return False
        new, old = (self.certificate(p.certificate).not_after for p in (candidate.parts, self.current.parts))
        return new < old

    def compromise_of(self, key: KeyRef) -> Halt | None:
        """Return when and how people reported that others know `key`, None if they did not."""
        return next((r.compromised for r in self.requests if r.key == key and r.compromised), None)

    @property
    def compromised(self) -> Generation | None:
        """The newest generation with a key that others know, also if retired, until the partner has revoked it."""
        keys = {r.key for r in self.requests if r.compromised and not r.revoked_at}
        if not keys:
            return None
        known = (g for g in reversed(self.generations) if g.parts.key in keys)
        return next((g for g in known if g.stage.deliverable or g.stage is Stage.RETIRED), None)

    def certificate(self, ref: CertificateRef) -> Certificate:
        """Return the certificate a generation refers to."""
        for certificate in self.certificates:
            if certificate.ref == ref:
                return certificate
        raise KeyError(ref)

    def ca_set(self, ref: CaSetRef) -> CaSet:
        """Return the CA set that a generation or a pin refers to."""
        return next(a for a in self.anchors if a.ref == ref)


def _first(found: Iterable[T], message: str, hint: str) -> T:
    for item in found:
        return item
    raise UnknownNameError(message, hint=hint)


def _contradictions(account: Account) -> Iterable[str]:
    if sum(r.closed is None for r in account.requests) > 1:
        yield "more than one open signing request"
    if sum(g.stage is Stage.CURRENT for g in account.generations) > 1:
        yield "more than one current generation"
    for numbers in ([r.number for r in account.requests], [g.number for g in account.generations]):
        if numbers != sorted(set(numbers)):
            yield "the numbers of its requests or generations do not rise"
    if len({a.name for a in account.applications}) < len(account.applications):
        yield "two applications with the same name"
    try:
        part_of(timedelta(days=1), account.renew_before or "1d")
    except InputError as error:
        yield f"its renewal setting: {error.message}"
    yield from _dangling(account)
    if account.doomed_keys & account.keys_in_use or account.doomed_secrets & account.secrets_in_use:
        yield "a secret in use is to be destroyed"
    follows = all(later.before == earlier.hash for earlier, later in pairwise(account.outbox))
    ends = [Head(e.number, e.hash) for e in account.outbox[-1:]]
    if not follows or account.head not in (ends or [account.head]):
        yield "its outbox does not lead up to its head"
    if any(entry.chain != f"accounts/{account.name}" or not 0 < entry.number <= LAST for entry in account.outbox):
        yield "its outbox has an entry that is not of its chain"


def _dangling(account: Account) -> Iterable[str]:
    certificates = {c.ref for c in account.certificates}
    ca_sets = {a.ref for a in account.anchors}
    for generation in account.generations:
        parts = generation.parts
        named = {parts.trust, parts.issuing} - {""}
        if (parts.certificate and parts.certificate not in certificates) or not named <= ca_sets:
            yield f"generation {generation.number} refers to a missing part"
        whole = account.parts_of(generation) if generation.stage is Stage.CANDIDATE else parts
        living = generation.stage is Stage.CANDIDATE or generation.stage.deliverable
        if not whole.complete and living:
            yield f"generation {generation.number} is not complete"
        if living and not parts.client_ids.keys() <= account.client_ids.keys():
            yield f"generation {generation.number} has a client_id of an application that has none"
    if account.current and replaced_ids(account.client_ids, account.current.parts.client_ids):
        yield "its applications have other client_ids than its current generation"
    if not {account.issuing, account.trust} - {None} <= ca_sets:
        yield "a pin refers to missing CAs"
