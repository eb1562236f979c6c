"""Recipients of notices: who is notified, who is dead, and what was sent to whom. One document for all accounts.

An address is dead after a bounce of a mail that we sent, until a person tests it by name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Self

from msgspec import Struct

from broker.copies import replace
from broker.model.account import Contacts
from broker.model.names import AccountName

WEBHOOK: Final = "webhook"  # a recipient beside the mail addresses
FAILING: Final = 3  # failures in a row: then nobody counts on it
DIGEST_HOUR: Final = 6  # UTC, so that hosts in two time zones have the same day
ENTRIES: Final = 200  # in a calendar that can be withdrawn
REMEMBERED: Final = 20  # Message-IDs, by which a bounce is recognised
_SHORTEST: Final = timedelta(minutes=5)
_LONGEST: Final = timedelta(hours=6)
_LONGEST_REASON: Final = 200


class Entry(Struct, frozen=True):
    """An entry in a recipient's calendar: one for an account and step. `over`: the step is, so it is withdrawn."""

    account: AccountName
    step: str
    sequence: int  # rises with each mail about the entry (RFC 5545, 3.8.7.4)
    over: bool = False

    @property
    def uid(self) -> str:
        """Its UID, without a domain."""
        return f"{self.account}.{self.step}"


class Digest(Struct, frozen=True):
    """The last digest of a recipient: fixed before it is sent, with the events that it has, as ACCOUNT.EVENT."""

    id: str
    at: datetime  # when it was fixed, later when it was sent
    events: tuple[str, ...]
    sent: bool = False
    withdrawn: tuple[Entry, ...] = ()  # from the recipient's calendar


class Recipient(Struct, frozen=True):
    """A mail address, or the webhook."""

    name: str
    sent_at: datetime | None = None  # the last time that its server took something
    tested_at: datetime | None = None
    dead_since: datetime | None = None
    reason: str = ""  # of its death, or of the last failure
    failures: int = 0  # in a row
    retry_at: datetime | None = None
    digest: Digest | None = None
    ids: tuple[str, ...] = ()  # of the last mails
    entries: tuple[Entry, ...] = ()  # in its calendar

    def ready(self, now: datetime) -> bool:
        """Return whether it may be tried now. A clock that was set back does not silence it."""
        return self.retry_at is None or not now < self.retry_at <= now + _LONGEST

    def digest_due(self, now: datetime) -> bool:
        """Return whether a new digest may be made: one a day, from `DIGEST_HOUR` on."""
        return now.hour >= DIGEST_HOUR and (
            self.digest is None or (self.digest.sent and self.digest.at.date() < now.date())
        )

    def took(self, message_id: str, now: datetime, entries: Iterable[Entry] = ()) -> Self:
        """Return it after its server took a message, with `entries` for its calendar."""
        fresh = {entry.uid: entry for entry in entries}
        kept = (*(entry for entry in self.entries if entry.uid not in fresh), *fresh.values())[-ENTRIES:]
        ids = (*(known for known in self.ids if known != message_id), message_id)[-REMEMBERED:]
        return replace(
            self,
            sent_at=now,
            failures=0,
            retry_at=None,
            ids=ids,
            entries=kept,
            reason=self.reason * bool(self.dead_since),
        )

    def failed(self, reason: str, now: datetime) -> Self:
        """Return it after a failure: tried again in five minutes, then twice as long, six hours at most."""
        wait = min(_SHORTEST * 2 ** min(self.failures, 10), _LONGEST)
        reason = self.reason if self.dead_since else reason[:_LONGEST_REASON]
        return replace(self, failures=self.failures + 1, retry_at=now + wait, reason=reason)

    def died(self, reason: str, now: datetime) -> Self:
        """Return it after a bounce."""
        return replace(self, dead_since=self.dead_since or now, reason=reason[:_LONGEST_REASON])

    def tested(self, now: datetime, *, by_name: bool) -> Self:
        """Return it after a test was sent. A test by name takes it for alive until it bounces again."""
        alive = replace(self, dead_since=None, reason="") if by_name else self
        return replace(alive, tested_at=now)

    def with_digest(self, digest: Digest, now: datetime) -> Self:
        """Return it with `digest` if one may be made now. One that was fixed before and is not sent goes first.

        It withdraws the entries that are over, once.
        """
        if not self.digest_due(now):
            return self
        withdrawn = tuple(replace(e, sequence=max(e.sequence + 1, minutes(now))) for e in self.entries if e.over)
        left = tuple(entry for entry in self.entries if not entry.over)
        return replace(self, digest=replace(digest, withdrawn=withdrawn), entries=left)

    def digested(self, now: datetime, *, dropped: bool = False) -> Self:
        """Return it after its digest was sent; or `dropped`, since all in it was over: the next one withdraws then."""
        if self.digest is None:
            return self
        back = self.digest.withdrawn if dropped else ()
        return replace(self, digest=replace(self.digest, at=now, sent=True), entries=(*self.entries, *back))

    def at_steps(self, steps: Mapping[AccountName, str]) -> Self:
        """Return it with the entries that are over, since their accounts are at another of `steps`."""
        entries = tuple(replace(e, over=steps.get(e.account, e.step) != e.step) for e in self.entries)
        return self if entries == self.entries else replace(self, entries=entries)


class Recipients(Struct, frozen=True):
    """All recipients that something was sent to, by name."""

    known: tuple[Recipient, ...] = ()

    def of(self, name: str) -> Recipient:
        """Return a recipient, a new one if nothing was sent to it yet."""
        return next((r for r in self.known if r.name == name), Recipient(name))

    def change(self, name: str, change: Callable[[Recipient], Recipient]) -> Self:
        """Return them with one changed."""
        others = (r for r in self.known if r.name != name)
        return replace(self, known=tuple(sorted((*others, change(self.of(name))), key=lambda r: r.name)))

    def at_steps(self, steps: Mapping[AccountName, str]) -> Self:
        """Return them with the calendar entries that are over, since their accounts are at another of `steps`."""
        return replace(self, known=tuple(r.at_steps(steps) for r in self.known))

    def dead(self, name: str) -> bool:
        """Return whether its mails bounce."""
        return self.of(name).dead_since is not None

    def reaches(self, name: str) -> bool:
        """Return whether it is alive and not failing."""
        return not self.dead(name) and self.of(name).failures < FAILING

    def owner_of(self, message_id: str) -> str:
        """Return who was sent the mail `message_id`, "" if we never sent it."""
        return next((r.name for r in self.known if message_id in r.ids), "")


def minutes(moment: datetime) -> int:
    """Return a SEQUENCE for a calendar entry, which rises with time (31 bits last until the year 6053)."""
    return int(moment.timestamp() // 60)


def team_of(contacts: Contacts, recipients: Recipients, *, alert: bool) -> tuple[str, ...]:
    """Return who of the team is notified: all for an alert, the living for a digest."""
    return tuple(name for name in dict.fromkeys(contacts.team) if alert or not recipients.dead(name))


def partner_of(contacts: Contacts, recipients: Recipients) -> tuple[str, ...]:
    """Return who at the partner is reminded: the first contact, and after each dead one the next too."""
    reminded: list[str] = []
    for name in dict.fromkeys(contacts.partner):
        reminded.append(name)
        if not recipients.dead(name):
            break
    return tuple(reminded)


def nobody_notified(contacts: Contacts, recipients: Recipients, *, mail: bool, webhook: bool) -> bool:
    """Return whether no living address of the team and no working webhook is left, by the channels that there are."""
    names = (*(contacts.team if mail else ()), *((WEBHOOK,) if webhook else ()))
    return not any(map(recipients.reaches, names))


def oldest_test(names: Sequence[str], recipients: Recipients) -> datetime | None:
    """Return when the recipient whose test is the longest ago was tested; None if one never was."""
    times = [recipients.of(name).tested_at for name in names]
    return min((t for t in times if t), default=None) if all(times) else None
