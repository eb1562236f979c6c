"""The events in an account's evidence, and the state of an account by its document and by its evidence.

`account_state` and `fold` must agree. If they do not, the document was changed by something other than the broker.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.chain import Entry, Fact
from broker.model.generation import Closed, Parts, PromotionMode, RenewalMode, replaced_ids
from broker.model.stage import MOVES, Move, Stage

_ACCEPTED: Final = "ok"  # the verdict on a canary that the partner answered
_SECRET: Final = "secret:"  # noqa: S105  # before the name of a secret that is not the password
_CLIENT_ID: Final = "client_id:"  # before the name of an application
_REFS: Final = ("key", "certificate", "issuing", "trust")  # of `Parts`
IDENTITY: Final = ("profile", "environment", "login", "base_url")


class Event(Enum):
    """The kinds of entry in an account's evidence."""

    ACCOUNT_ADDED = "account-added"
    ACCOUNT_SET = "account-set"
    RENEWAL_SNOOZED = "renewal-snoozed"
    SNOOZE_ENDED = "snooze-ended"
    SUBJECT_SET = "subject-set"
    ACCOUNT_SUSPENDED = "account-suspended"
    ACCOUNT_RESUMED = "account-resumed"
    ACCOUNT_REMOVED = "account-removed"
    APPLICATION_SET = "application-set"
    APPLICATION_REMOVED = "application-removed"
    PASSWORD_SET = "password-set"  # noqa: S105  # the name of an event
    PASSWORD_ROTATION = "password-rotation"  # noqa: S105  # the same
    SECRET_SET = "secret-set"  # noqa: S105  # the same
    TRUST_SET = "trust-set"
    CA_ACCEPTED = "ca-accepted"
    FINDING_ACCEPTED = "finding-accepted"
    REQUEST_DRAFTED = "request-drafted"
    REQUEST_SUBMITTED = "request-submitted"
    REQUEST_CLOSED = "request-closed"
    GENERATION_BORN = "generation-born"
    GENERATION_MOVED = "generation-moved"
    CANARY_SENT = "canary-sent"
    CANARY_ANSWERED = "canary-answered"
    BREAKER_RESET = "breaker-reset"
    LEASE_REVOKED = "lease-revoked"
    KEY_COMPROMISED = "key-compromised"
    CERTIFICATE_REVOKED = "certificate-revoked"
    COPY_NOTED = "copy-noted"
    COPY_GONE = "copy-gone"


@dataclass(slots=True)
class AccountState:
    """The state that document and evidence must agree on, in the order in which differences are reported."""

    requests: dict[int, Closed | None] = field(default_factory=dict)
    stages: dict[int, Stage] = field(default_factory=dict)
    parts: dict[int, Parts] = field(default_factory=dict)
    secrets: dict[str, int] = field(default_factory=dict)
    identity: dict[str, Fact] = field(default_factory=dict)  # fixed by the first entry
    applications: dict[str, str] = field(default_factory=dict)  # client_id, by name
    issuing: str = ""
    trust: str = ""
    subject: str = ""
    settings: dict[str, Fact] | None = None  # contacts and renewal; None: the evidence does not have them
    snoozed: str = ""  # until when
    suspended: bool = False
    removed: bool = False
    rotation: tuple[str, ...] = ()  # steps of the password rotation that people confirmed
    holders: dict[int, set[str]] = field(default_factory=dict)  # who has copies of a request's key outside
    compromised: dict[str, bool] = field(default_factory=dict)  # keys that others know: whether their end is confirmed

    @property
    def current(self) -> int:
        """The number of the current generation, 0 if none is."""
        return next((number for number, stage in self.stages.items() if stage is Stage.CURRENT), 0)


def account_state(account: Account) -> AccountState:
    """Return the state by the document."""
    return AccountState(
        {r.number: r.closed for r in account.requests},
        {g.number: g.stage for g in account.generations},
        {g.number: g.parts for g in account.generations},
        dict(account.secrets),
        identity(account),
        {a.name: a.client_id for a in account.applications},
        account.issuing or "",
        account.trust or "",
        str(account.subject),
        settings_facts(account),
        account.snoozed.until.isoformat() if account.snoozed else "",
        account.suspended is not None,
        account.removed is not None,
        _confirmed(account),
        {r.number: set(r.held_by) for r in account.requests if r.held_by},
        {r.key: r.revoked_at is not None for r in account.requests if r.compromised},
    )


def _confirmed(account: Account) -> tuple[str, ...]:
    rotation = account.password_rotation
    return ("begun", *(one.step.value for one in rotation.steps if one.step.by_hand)) if rotation else ()


def identity(account: Account) -> dict[str, Fact]:
    """Return the facts about `account` that never change."""
    return {name: str(getattr(account, name)) for name in IDENTITY}


def settings_facts(account: Account) -> dict[str, Fact]:
    """Return contacts and renewal settings as facts of an entry."""
    return {
        "contact": " ".join(account.contacts.partner),
        "team": " ".join(account.contacts.team),
        "renew_before": account.renew_before,
        "renewal": account.renewal.value,
        "promotion": account.promotion.value,
        "submit_via": account.submit_via,
        "language": account.language,
    }


def fold(entries: Iterable[Entry]) -> AccountState:
    """Return the state by the evidence. Raise `ValueError` for an entry that no rule allows.

    A writer of accounts can append entries with valid hashes. So an entry must not restate what an earlier one said: an
    account is added once, and each number is given once.
    """
    replay = _Replay()
    for entry in entries:
        if (entry.number == 1) is not (entry.what == Event.ACCOUNT_ADDED.value):
            raise ValueError(f"entry {entry.number} of {entry.chain} is {entry.what}: only entry 1 adds an account")
        try:
            replay.apply(Event(entry.what), entry.facts)
        except KeyError as missing:
            raise ValueError(f"entry {entry.number} of {entry.chain} speaks of {missing}, which is not there") from None
    return replay.found


@dataclass(slots=True)
class _Replay:
    """The state so far, and the tries with their answers.

    In entries of schema 1 a candidate has all its parts (`whole`), those of its `base` among them, and a move no
    `order`; a roll-back left the displaced generation a candidate that was `held`. Today it is `previous`.
    """

    found: AccountState = field(default_factory=AccountState)
    tries: dict[int, tuple[int, Parts]] = field(default_factory=dict)  # the generation and set of each try
    proven: dict[int, Parts] = field(default_factory=dict)  # accepted by the partner since born or displaced
    whole: dict[int, Parts] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)

    def apply(self, what: Event, facts: Mapping[str, Fact]) -> None:  # noqa: C901, PLR0912, PLR0915  # one case for each event
        found = self.found
        match what:
            case Event.ACCOUNT_ADDED:
                found.identity = {name: facts.get(name, "") for name in IDENTITY}
                found.subject = str(facts.get("subject", ""))
                found.settings = _settings(facts) if "contact" in facts else None
            case Event.ACCOUNT_SET:
                found.settings = _settings(facts)
            case Event.RENEWAL_SNOOZED | Event.SNOOZE_ENDED:
                found.snoozed = str(facts["until"]) if what is Event.RENEWAL_SNOOZED else ""
            case Event.SUBJECT_SET:
                found.subject = str(facts["subject"])
            case Event.ACCOUNT_SUSPENDED | Event.ACCOUNT_RESUMED:
                found.suspended = what is Event.ACCOUNT_SUSPENDED
            case Event.ACCOUNT_REMOVED:
                found.removed = True
            case Event.APPLICATION_SET:
                found.applications[str(facts["application"])] = str(facts["client_id"])
            case Event.APPLICATION_REMOVED:
                self._remove_application(str(facts["application"]))
            case Event.PASSWORD_ROTATION:
                over = facts["step"] in ("dead", "aborted")
                found.rotation = () if over else (*found.rotation, str(facts["step"]))
            case Event.PASSWORD_SET | Event.SECRET_SET:
                found.secrets |= _parts(facts).secrets
            case Event.TRUST_SET:
                found.trust = str(facts["trust"])
            case Event.CA_ACCEPTED:
                found.issuing = str(facts["issuing"])
            case Event.REQUEST_DRAFTED:
                found.requests[_new(found.requests, facts["request"])] = None
            case Event.REQUEST_CLOSED:
                self._close(int(facts["request"]), Closed(facts["closed"]))
            case Event.GENERATION_BORN:
                self._add_generation(_new(found.stages, facts["generation"]), facts)
            case Event.CANARY_SENT:
                number = int(facts["generation"])
                parts = _parts(facts) if "certificate" in facts else self.whole[number]
                self.tries[int(facts["attempt"])] = number, parts
            case Event.CANARY_ANSWERED if facts["verdict"] == _ACCEPTED:
                number, parts = self.tries[int(facts["attempt"])]
                self.proven[number] = parts
            case Event.GENERATION_MOVED:
                self._move(int(facts["generation"]), Move(facts["move"]), facts)
            case Event.KEY_COMPROMISED:
                found.compromised[str(facts["key"])] = False
            case Event.CERTIFICATE_REVOKED:
                found.compromised |= {str(facts["key"]): not found.compromised[str(facts["key"])]}
            case Event.COPY_NOTED:
                found.holders.setdefault(int(facts["request"]), set()).add(str(facts["holder"]))
            case Event.COPY_GONE:
                self._remove_holder(int(facts["request"]), str(facts["holder"]))

    def _remove_application(self, name: str) -> None:
        self.found.applications.pop(name, None)
        for number, stage in self.found.stages.items():
            if stage.deliverable:
                self.found.parts[number] = self.found.parts[number].without_client_id(name)

    def _remove_holder(self, number: int, holder: str) -> None:
        self.found.holders[number].remove(holder)
        if not self.found.holders[number]:
            del self.found.holders[number]

    def _close(self, number: int, why: Closed) -> None:
        if self.found.requests[number] is not None:
            raise ValueError(f"the evidence closes request {number} a second time")
        self.found.requests[number] = why

    def _add_generation(self, number: int, facts: Mapping[str, Fact]) -> None:
        parts, base = _parts(facts), int(facts.get("base", 0))
        self.found.stages[number] = Stage.CANDIDATE
        if "base" in facts:
            self.whole[number] = parts
        if int(facts.get("replaces", 0)) in self.held:
            self.held.add(number)
            self.found.stages[number] = Stage.PREVIOUS
        elif base:
            parts = parts.beyond(self.whole[base])
        self.found.parts[number] = parts

    def _move(self, number: int, move: Move, facts: Mapping[str, Fact]) -> None:
        """Move by the table; to current only with parts that the partner accepted, or for a person's reason."""
        found = self.found
        row = MOVES[move]
        withdrawn = move is Move.REJECT and number in self.held
        if (found.stages[number] not in row.starts and not withdrawn) or facts["stage"] != row.end.value:
            raise ValueError(
                f"the evidence has {move.value} of generation {number}, which was {found.stages[number].value}"
            )
        if row.end is Stage.CURRENT:
            found.parts[number] = self._arrived(number, move, facts)
            found.trust = found.parts[number].trust
        elif "order" not in facts:
            found.parts[number] = self.whole[number]
        if row.displaced and found.current:
            self.proven.pop(found.current, None)  # what comes back is tried again
            if move is Move.ROLL_BACK:
                self.held.add(found.current)
            found.stages[found.current] = row.displaced
        found.stages[number] = row.end
        if row.end is Stage.CURRENT:
            self._give_client_ids(found.parts[number].client_ids)

    def _give_client_ids(self, new: Mapping[str, str]) -> None:
        """Give applications the client_ids of the set that became current; those before it keep what it replaces."""
        found = self.found
        replaced = replaced_ids({name: now for name, now in found.applications.items() if now}, new)
        found.applications |= {name: new[name] for name in replaced}
        for number, stage in found.stages.items():
            if stage is Stage.PREVIOUS:
                found.parts[number] = found.parts[number].over(Parts(client_ids=replaced))

    def _arrived(self, number: int, move: Move, facts: Mapping[str, Fact]) -> Parts:
        """Return the parts with which generation `number` became current."""
        found, parts = self.found, self.found.parts[number]
        if found.stages[number] is Stage.CANDIDATE and found.current:
            parts = parts.over(found.parts[found.current])
        if not parts.complete or ("order" in facts and _parts(facts) != parts):
            raise ValueError(f"the evidence has {move.value} of generation {number} with other parts than it has")
        untried = move is Move.ROLL_BACK and facts.get("reason")
        if self.proven.get(number) != parts and not untried:
            raise ValueError(
                f"the evidence has {move.value} of generation {number}, which the partner had not accepted"
            )
        self.held.discard(number)
        return parts


def _new(known: Iterable[int], number: Fact) -> int:
    if int(number) <= max(known, default=0):
        raise ValueError(f"the evidence gives number {number} a second time")
    return int(number)


def _settings(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Return the settings in an entry. Entries of 0.1.0 have no modes: the default applied."""
    return {name: facts[name] for name in ("contact", "team", "renew_before")} | {
        "renewal": facts.get("renewal", RenewalMode.AUTO.value),
        "promotion": facts.get("promotion", PromotionMode.MANUAL.value),
        "submit_via": facts.get("submit_via", ""),
        "language": facts.get("language", ""),
    }


def parts_facts(parts: Parts) -> dict[str, Fact]:
    """Return the parts that are not empty, as facts of an entry."""
    facts: dict[str, Fact] = {name: getattr(parts, name) for name in _REFS}
    secrets = {name if name == PASSWORD else _SECRET + name: number for name, number in parts.secrets.items()}
    ids = {_CLIENT_ID + name: client_id for name, client_id in parts.client_ids.items()}
    return {name: value for name, value in facts.items() if value} | secrets | ids


def _parts(facts: Mapping[str, Fact]) -> Parts:
    refs: dict[str, Any] = {name: facts.get(name, "") for name in _REFS}
    secrets = {n.removeprefix(_SECRET): int(v) for n, v in facts.items() if n == PASSWORD or n.startswith(_SECRET)}
    ids = {n.removeprefix(_CLIENT_ID): str(value) for n, value in facts.items() if n.startswith(_CLIENT_ID)}
    return Parts(secrets=secrets, client_ids=ids, **refs)
