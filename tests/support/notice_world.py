"""Stores of notices in memory, a mail system that keeps what it takes, and kills at any of their calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from broker.errors import MailUnavailableError, UnknownNameError
from broker.model.account import Account
from broker.model.channel import Channel
from broker.model.due import Renewal
from broker.model.letter import Letter, LetterKind
from broker.model.names import AccountName
from broker.model.notice_rules import Channels
from broker.model.recipient import Recipients
from broker.model.rotation_record import RotationRecord
from broker.partners.catalogue import builtin
from broker.partners.planned import plan_of
from broker.partners.profile import Profile, Submission
from broker.people.eml import reminder
from broker.scheduling.notices import Notices
from tests.support.accounts import NOW

__all__ = ["Killed", "NoticeWorld"]


class Killed(BaseException):
    """The process was killed."""


@dataclass
class _Records:
    world: NoticeWorld
    stored: dict[AccountName, RotationRecord] = field(default_factory=dict)

    def read(self, name: AccountName) -> RotationRecord:
        return self.stored.get(name, RotationRecord())

    def change(self, name: AccountName, change: Callable[[RotationRecord], RotationRecord]) -> RotationRecord:
        self.world.call()
        self.stored[name] = change(self.read(name))
        self.world.call()
        return self.stored[name]


@dataclass
class _Recipients:
    world: NoticeWorld
    stored: Recipients = field(default_factory=Recipients)

    def read(self) -> Recipients:
        return self.stored

    def change(self, change: Callable[[Recipients], Recipients]) -> Recipients:
        self.world.call()
        self.stored = change(self.stored)
        self.world.call()
        return self.stored


@dataclass
class NoticeWorld:
    """Accounts, their records, the recipients, and what was sent. `kill_at` counts calls around each write and mail."""

    accounts: dict[str, Account] = field(default_factory=dict)
    channels: Channels = field(default_factory=lambda: Channels(mail=True, webhook=False))
    renewal: Renewal = field(default_factory=lambda: Renewal(share=0.9))
    now: datetime = NOW
    sent: list[Letter] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    submits: bool = True
    kill_at: int = 0
    calls: int = 0
    fenced: int = 0

    def __post_init__(self) -> None:
        self.records = _Records(self)
        self.recipients = _Recipients(self)
        self.notices = Notices(
            self._account,
            self.accounts.values,
            self.records,
            self.recipients,
            self._holders,
            lambda account: reminder(account, builtin("stellantis")),
            self.channels,
            self._deliver,
            lambda: self.now,
        )

    def sweep(self) -> None:
        """Notify people of all accounts, as a new process would."""
        submission = Submission(how=Channel.SMTP if self.submits else Channel.PORTAL)
        profile = Profile("partner", "Partner", {}, submission=submission, renewal=self.renewal)
        plans = [plan_of(account, profile, self.now) for account in self.accounts.values()]
        self.notices.notify(plans, self._fence)

    def call(self) -> None:
        """Count a moment at which a kill may come."""
        self.calls += 1
        if self.calls == self.kill_at:
            raise Killed

    def letters_of(self, kind: LetterKind | None = None) -> Counter[tuple[str, str]]:
        """Return how many letters with different ids each recipient got about each event."""
        letters = {letter.id: letter for letter in self.sent if kind in (None, letter.kind)}
        return Counter((letter.to, item.key) for letter in letters.values() for item in letter.items)

    def _account(self, name: AccountName) -> Account:
        if name not in self.accounts:
            raise UnknownNameError(f"no account {name}")
        return self.accounts[name]

    def _holders(self, account: Account) -> Iterable[str]:
        return ("batch-7", "web-2")

    def _fence(self) -> None:
        self.fenced += 1

    def _deliver(self, letter: Letter) -> None:
        self.call()
        if letter.to in self.down:
            raise MailUnavailableError("the mail server is away")
        self.sent.append(letter)
        self.call()
