"""Notify people: decide, record, send, and record that it was sent. Killed anywhere, it sends the same again.

A recipient that cannot be reached is tried again at later sweeps, and stops nothing else.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol

from msgspec import Struct

from broker.addresses import on_wire
from broker.copies import replace
from broker.errors import BrokerError, VaultUnavailableError
from broker.model.account import Account
from broker.model.clock import Clock
from broker.model.letter import Item, Letter, LetterKind, is_ours, letter_id, sent_id
from broker.model.names import AccountName
from broker.model.notice import Reminder, current, decided, delivered
from broker.model.notice_rules import Channels, Happening, addressed, happening, noticed
from broker.model.plan import AccountPlan
from broker.model.proposal import Bounce
from broker.model.recipient import Digest, Recipient, Recipients
from broker.model.rotation_record import RotationRecord
from broker.scheduling import matching
from broker.scheduling.ports import Fence, LostLockError, Records
from broker.telemetry import log

LARGEST: Final = 200  # items of a digest; the others come the next day


class RecipientStore(Protocol):
    """The recipients of notices."""

    def read(self) -> Recipients:
        """Return all recipients."""

    def change(self, change: Callable[[Recipients], Recipients]) -> Recipients:
        """Apply the pure `change` under compare-and-set; return the new recipients."""


Deliver = Callable[[Letter], None]  # raises BrokerError
Holders = Callable[[Account], Iterable[str]]  # names of the consumers that hold the current generation


class Tested(Struct, frozen=True):
    """A test that was sent, or the reason why not."""

    recipient: str
    error: BrokerError | None = None


class _Waiting(Struct, frozen=True):
    """The step that an account is at, "" if there is nothing to say, and what waits for somebody about it."""

    step: str = ""
    items: tuple[Item, ...] = ()


class Notices(Struct, frozen=True):
    """Notices to the team, to the partner's contacts, and to the webhook."""

    account: Callable[[AccountName], Account]
    accounts: Callable[[], Iterable[Account]]
    records: Records
    recipients: RecipientStore
    holders: Holders
    reminder: Callable[[Account], Reminder]  # to the partner's people who do not answer
    channels: Channels
    deliver: Deliver
    clock: Clock

    def notify(self, plans: Sequence[AccountPlan], fence: Fence) -> None:
        """Tell people about the accounts of `plans`, each event once. `fence` is called before each letter."""
        if not (self.channels.mail or self.channels.webhook):
            return
        found = {plan.account: one for plan in plans if (one := self._apart(plan))}
        steps = {name: one.step for name, one in found.items()}
        if steps:
            self.recipients.change(lambda recipients: recipients.at_steps(steps))
        items = [item for one in found.values() for item in one.items]
        for item in items:
            for to in item.notice.waiting if item.notice.alert else ():
                self._alert(item, to, fence)
        for to in dict.fromkeys(to for item in items for to in item.notice.waiting if not item.notice.alert):
            self._digest(to, [i for i in items if to in i.notice.waiting and not i.notice.alert], fence)

    def test(self, names: Iterable[str], *, by_name: bool) -> Iterator[Tested]:
        """Send a test to each of `names`. By name, it takes a dead recipient for alive until it bounces again."""
        for name in names:
            now = self.clock()
            letter = Letter(LetterKind.TEST, name, letter_id(secrets.token_hex(12), name), now)
            try:
                self.deliver(letter)
            except VaultUnavailableError:
                raise
            except BrokerError as error:
                self._note(name, partial(Recipient.failed, reason=error.message, now=now))
                yield Tested(name, error)
            else:
                self._note(name, lambda r: r.took(letter.id, now).tested(now, by_name=by_name))  # noqa: B023
                yield Tested(name)

    def bounced(self, bounce: Bounce) -> None:
        """Take note that a mail did not arrive. It counts only if it was a notice of ours, or the mail with a CSR."""
        dead = self.recipients.read().owner_of(sent_id(bounce.message_id))
        if not dead and is_ours(bounce.message_id):  # no account is read for the mail of others
            named = (match.account.contacts.partner for match in matching.bounced(bounce, self.accounts()))
            dead = next((to for partner in named for to in partner if bounce.recipient in (to, on_wire(to))), "")
        if dead:
            reason = "".join(c if c.isprintable() else " " for c in f"bounced with status {bounce.status}")
            self._note(dead, partial(Recipient.died, reason=reason, now=self.clock()))
            log.error("recipient is dead", reason=reason)

    def _apart(self, plan: AccountPlan) -> "_Waiting | None":
        """Return what waits for somebody about an account. An account that fails stops no other."""
        try:
            return self._decided(plan)
        except Exception as error:  # noqa: BLE001  # also a fault of ours
            log.error("no notice decided", account=plan.account, reason=_reason(error))
            return None

    def _decided(self, plan: AccountPlan) -> "_Waiting":
        name, now = plan.account, self.clock()
        account, record = self.account(name), self.records.read(name)
        happened = None if account.removed else happening(plan, account, record, now)
        if happened is None:
            if any(notice.waiting for notice in record.notices):
                self.records.change(name, lambda r: replace(r, notices=current(r.notices, "")))
            return _Waiting()
        if all(notice.event != happened.event for notice in record.notices):
            record = self._recorded(account, happened)
        waiting = (n for n in record.notices if n.event == happened.event and n.waiting)
        return _Waiting(happened.event.rpartition(".")[0], tuple(Item(name, notice) for notice in waiting))

    def _recorded(self, account: Account, happened: Happening) -> RotationRecord:
        """Store the notice of an event before it is sent. If another process was faster, its notice counts."""
        unaddressed = noticed(happened, account, self.holders(account), secrets.token_hex(12), self.clock())
        notice = addressed(unaddressed, account, self.recipients.read(), self.channels, late=happened.late)
        if not notice.waiting:  # a recipient added later is notified then
            log.error("nobody to notify", account=account.name, reason=happened.message)
            return RotationRecord()
        if notice.partner:
            notice = replace(notice, reminder=self.reminder(account))
        return self.records.change(account.name, lambda r: replace(r, notices=decided(r.notices, notice)))

    def _alert(self, item: Item, to: str, fence: Fence) -> None:
        if not self.recipients.read().of(to).ready(self.clock()):
            return
        kind = LetterKind.REMINDER if to in item.notice.partner else LetterKind.ALERT
        letter = Letter(kind, to, letter_id(item.notice.id, to), item.notice.at, (item,))
        if self._sent(letter, fence):
            self._delivered(item, to)

    def _digest(self, to: str, items: Sequence[Item], fence: Fence) -> None:
        """Send the daily digest: what was fixed before goes first, so that a repetition has the same id and content."""
        now, one = self.clock(), self.recipients.read().of(to)
        waiting = {item.key: item for item in items}
        for key in one.digest.events if one.digest and one.digest.sent else ():
            if key in waiting:  # it was sent, and a kill came before that was noted
                self._delivered(waiting.pop(key), to)
        if not waiting or not one.ready(now):
            return
        fresh = Digest(secrets.token_hex(12), now, tuple(sorted(waiting))[:LARGEST])
        fixed = self._note(to, lambda r: r.with_digest(fresh, now)).digest
        if fixed is None or fixed.sent:
            return
        found = tuple(waiting[key] for key in fixed.events if key in waiting)
        letter = Letter(LetterKind.DIGEST, to, letter_id(fixed.id, to), fixed.at, found, fixed.withdrawn)
        if found and not self._sent(letter, fence):
            return
        self._note(to, partial(Recipient.digested, now=now, dropped=not found))
        for item in found:
            self._delivered(item, to)

    def _sent(self, letter: Letter, fence: Fence) -> bool:
        """Send a letter; return whether it was taken. A failure is noted, and tried again later."""
        fence()
        now = self.clock()
        try:
            self.deliver(letter)
        except Exception as error:  # noqa: BLE001  # also a fault of ours
            reason = _reason(error)
            log.error("notice not sent", kind=letter.kind.value, reason=reason)
            self._note(letter.to, partial(Recipient.failed, reason=reason, now=now))
            return False
        self._note(letter.to, partial(Recipient.took, message_id=letter.id, now=now, entries=letter.entries))
        return True

    def _delivered(self, item: Item, to: str) -> None:
        self.records.change(item.account, lambda r: replace(r, notices=delivered(r.notices, item.notice.event, to)))

    def _note(self, name: str, change: Callable[[Recipient], Recipient]) -> Recipient:
        return self.recipients.change(lambda found: found.change(name, change)).of(name)


def _reason(error: Exception) -> str:
    """Return what to log of `error`; raise it if nothing may go on. The text of a fault of ours may hold anything."""
    if isinstance(error, VaultUnavailableError | LostLockError):
        raise error
    return error.message if isinstance(error, BrokerError) else f"unexpected {type(error).__name__}"
