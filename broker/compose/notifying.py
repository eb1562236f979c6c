"""Notices and hooks, as they are configured: who is notified, by which channel, and who can be reached."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from broker import child
from broker.compose.mail import PASSED
from broker.errors import BrokerError, InputError, UnknownNameError
from broker.model.account import Account
from broker.model.duration import parse_duration
from broker.model.finding import Finding
from broker.model.letter import Letter
from broker.model.names import AccountName, guess
from broker.model.notice_rules import Channels
from broker.model.recipient import WEBHOOK, Recipients, nobody_notified, oldest_test
from broker.model.role import Role
from broker.people.eml import reminder
from broker.people.notice_json import body
from broker.people.notice_mail import mail
from broker.people.webhook import Webhook
from broker.scheduling.hooks import HookEvent, Hooks
from broker.scheduling.notices import Notices, Tested
from broker.settings import SMTP
from broker.vault.scheduler_state import VaultRecipients, VaultRotationRecords

if TYPE_CHECKING:  # a cycle: `Broker` offers this
    from broker.compose.graph import Broker

_HOOKS: Final = {
    HookEvent.PROMOTED: "hooks.on_promoted",
    HookEvent.SUBMITTED: "hooks.on_submitted",
    HookEvent.RETIRED: "hooks.on_retired",
    HookEvent.FAILURE: "hooks.on_failure",
}
_TEST_AGAIN: Final = timedelta(days=90)


class RecipientStatus(Struct, frozen=True):
    """A recipient of notices, and the accounts whose notices it gets."""

    recipient: str
    accounts: tuple[AccountName, ...]
    at_partner: bool
    tested_at: datetime | None
    sent_at: datetime | None
    dead_since: datetime | None
    last_digest: datetime | None
    failures: int
    reason: str


class Notifying:
    """Notices and hooks of this host's configuration."""

    def __init__(self, broker: Broker, environment: Mapping[str, str]) -> None:
        self._broker = broker
        self._config = broker.config
        self._environment = environment

    @property
    def channels(self) -> Channels:
        """The channels that are configured."""
        mail_works = self._broker.mail.has(SMTP) and bool(self._config["mail.smtp.from"])
        return Channels(mail_works, bool(self._config["notify.webhook"]))

    @cached_property
    def notices(self) -> Notices:
        """Notices, as the rotator gives them."""
        broker, vault = self._broker, self._broker.roles.connection(Role.ROTATOR)
        return Notices(
            account=lambda name: broker.roles.accounts(Role.ROTATOR).read(name).account,
            accounts=self._accounts,
            records=VaultRotationRecords(vault),
            recipients=VaultRecipients(vault),
            holders=lambda a: broker.stragglers(a.name, a.current.number) if a.current else (),
            reminder=lambda account: reminder(account, broker.profile(account.profile, Role.ROTATOR)),
            channels=self.channels,
            deliver=self._deliver,
            clock=broker.true_clock,
        )

    @cached_property
    def hooks(self) -> Hooks:
        """The hooks of this host."""
        seconds = parse_duration(self._config["hooks.timeout"]).total_seconds()
        commands = {event.value: shlex.split(self._config[setting]) for event, setting in _HOOKS.items()}
        passed = {name: value for name, value in self._environment.items() if name in PASSED}
        return Hooks(
            records=self.notices.records,
            commands={event: command for event, command in commands.items() if command},
            run=lambda command, variables: child.run(command, {**passed, **variables}, seconds),
        )

    def test(self, names: Sequence[str], *, everything: bool) -> Iterator[Tested]:
        """Send a test to each of `names`, or to the team of every account and to the webhook."""
        if not (self.channels.mail or self.channels.webhook):
            raise InputError("no channel for notices is configured", hint="set host and from under [mail.smtp]")
        known = self._statuses(self._accounts(), Recipients())
        for name in names:
            if name not in known:
                message = f"{name[:80]!r} is no recipient of notices"
                raise UnknownNameError(message, hint=f"{guess(name, known)}broker notify list shows them")
        chosen = [name for name, status in known.items() if not status.at_partner] if everything else names
        return self.notices.test(dict.fromkeys(chosen), by_name=not everything)

    def statuses(self) -> list[RecipientStatus]:
        """Return every recipient, as the auditor sees it."""
        return list(self._statuses(self._broker.all_accounts(), self._recipients()).values())

    def findings(self, accounts: Iterable[Account]) -> Iterator[Finding]:
        """Yield findings: accounts whose notices reach nobody, dead recipients, and tests that are too old."""
        channels = self.channels
        if not (channels.mail or channels.webhook):
            if Role.ROTATOR in self._broker.roles.here:
                message = "no channel for notices is configured on this host: its scheduler tells nobody"
                hint = "set host and from under [mail.smtp], or webhook under [notify]"
                yield Finding.note("notice.none", message, hint)
            return
        accounts = [account for account in accounts if not account.removed]
        try:
            recipients = self._recipients()
        except BrokerError as error:
            yield Finding.error("notice.unknown", error.message, error.hint)
            return
        for account in accounts:
            if nobody_notified(account.contacts, recipients, mail=channels.mail, webhook=channels.webhook):
                message = f"{account.name}: none of its recipients of notices can be reached"
                yield Finding.error("notice.nobody", message, f"broker account set {account.name} --team MAIL")
        known = self._statuses(accounts, recipients).values()
        for status in known:
            if status.dead_since:
                message = f"mails to {status.recipient} bounce since {status.dead_since:%F}: {status.reason}"
                yield Finding.warning("notice.dead", message, f"broker notify test {status.recipient}")
        team = [status.recipient for status in known if not status.at_partner]
        oldest = oldest_test(team, recipients)
        if team and (oldest is None or self._broker.clock() - oldest > _TEST_AGAIN):
            tested = f"the last test of one is from {oldest:%F}" if oldest else "not all were tested"
            yield Finding.note("notice.untested", f"recipients of notices: {tested}", "broker notify test --all")

    def gauges(self, accounts: Sequence[Account]) -> Mapping[str, float | None]:
        """Return numbers for Prometheus: unreached accounts, dead recipients, the age of the oldest test."""
        channels, recipients = self.channels, self.notices.recipients.read()
        known = self._statuses(accounts, recipients).values()
        living = [account for account in accounts if not account.removed]
        nobody = partial(nobody_notified, recipients=recipients, mail=channels.mail, webhook=channels.webhook)
        unreached = sum(nobody(account.contacts) for account in living)
        oldest = oldest_test([status.recipient for status in known if not status.at_partner], recipients)
        return {
            "notify_accounts_unreached": float(unreached),
            "notify_recipients_dead": float(sum(status.dead_since is not None for status in known)),
            "notify_oldest_test_timestamp_seconds": oldest.timestamp() if oldest else 0.0,
        }

    def _deliver(self, letter: Letter) -> None:
        if letter.to == WEBHOOK:
            self._webhook.send(letter.id, body(letter))
        else:
            mailer = self._broker.mail.mailer()
            mailer.send(mail(letter, mailer.sender))

    @property
    def _webhook(self) -> Webhook:
        config = self._config
        if not config["notify.webhook"]:
            raise InputError("no webhook is configured", hint="set webhook under [notify]")
        return Webhook(
            config["notify.webhook"],
            partial(self._broker.mail_secrets(Role.ROTATOR).newest, WEBHOOK),
            self._broker.true_clock,
            config["notify.webhook_form"],
            Path(config["notify.webhook_ca_file"]) if config["notify.webhook_ca_file"] else None,
            loopback=config["notify.webhook_loopback"] == "true",
        )

    def _accounts(self) -> Iterable[Account]:
        return self._broker.roles.accounts(Role.ROTATOR).all().found.values()

    def _recipients(self) -> Recipients:
        return VaultRecipients(self._broker.roles.connection(Role.AUDITOR)).read()

    def _statuses(self, accounts: Iterable[Account], recipients: Recipients) -> dict[str, RecipientStatus]:
        """Return the status of each recipient by name: the team, the webhook, then the partner's contacts."""
        team, partner = dict[str, list[AccountName]](), dict[str, list[AccountName]]()
        for account in (account for account in accounts if not account.removed):
            for names, found in ((account.contacts.team, team), (account.contacts.partner, partner)):
                for name in dict.fromkeys(names):
                    found.setdefault(name, []).append(account.name)
        notified = {**team, **({WEBHOOK: []} if self.channels.webhook else {})}
        rows = [(name, names, False) for name, names in sorted(notified.items())]
        rows += [(name, names, True) for name, names in sorted(partner.items()) if name not in notified]
        return {name: _status(recipients, name, tuple(names), at_partner=there) for name, names, there in rows}


def _status(
    recipients: Recipients, name: str, accounts: tuple[AccountName, ...], *, at_partner: bool
) -> RecipientStatus:
    one = recipients.of(name)
    digest = one.digest.at if one.digest and one.digest.sent else None
    return RecipientStatus(
        name, accounts, at_partner, one.tested_at, one.sent_at, one.dead_since, digest, one.failures, one.reason
    )
