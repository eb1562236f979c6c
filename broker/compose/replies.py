"""Replies that arrive at this host: its mailbox, its drop folder, and the proposals in Vault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import BrokerError, DeniedError, RefusedError
from broker.model.account import Account
from broker.model.clock import Stamp
from broker.model.finding import Finding
from broker.model.names import AccountName, account_name
from broker.model.proposal import Outcome, Proposal, found
from broker.model.role import Role
from broker.model.subject import Subject
from broker.people.drop_folder import dropped_files
from broker.people.mailbox import ImapMailbox
from broker.pki.reply import ReplyParts, read_reply
from broker.rotation.ports import Versioned
from broker.rotation.receive import ImportOptions, judged
from broker.scheduling.replies import Replies
from broker.settings import IMAP
from broker.vault.listing import RECORDS, listed
from broker.vault.scheduler_state import VaultMailboxMarks, VaultRotationRecords

if TYPE_CHECKING:  # a cycle: `Broker` offers this
    from broker.compose.graph import Broker


class Arriving:
    """What arrived, and the use-cases of it."""

    def __init__(self, broker: Broker, say: Callable[[str], None]) -> None:
        self._broker = broker
        self._say = say

    def poll(self) -> None:
        """Read the drop folder and the mailbox, as far as they are configured. One that fails does not stop the other.

        Raise the first error when both are done.
        """
        folder, errors = self._broker.config["replies.folder"], list[BrokerError]()
        for read in ((self._read_folder,) if folder else ()) + ((self._read_mailbox,) if self._watched else ()):
            try:
                read()
            except BrokerError as error:
                errors.append(error)
        for other in errors[1:]:
            self._say(other.message)
        if errors:
            raise errors[0]

    def waiting(self, names: Sequence[AccountName]) -> list[tuple[Account, Proposal]]:
        """Return the proposals of the accounts `names`, or of all, that wait for a person."""
        vault = self._broker.roles.connection(Role.AUDITOR)
        records = VaultRotationRecords(vault)
        for name in names:
            self._broker.account(name)  # or raises
        rows = []
        for name in names or map(account_name, listed(vault, RECORDS)):
            if proposals := records.read(name).proposals:
                account = self._broker.account(name)
                rows += [(account, one) for one in proposals if not one.over(account)]
        return rows

    def proposals(self, name: AccountName) -> tuple[Proposal, ...]:
        """Return what arrived for an account; none if its record cannot be read, which is reported."""
        try:
            return self._records(Role.AUDITOR).read(name).proposals
        except (DeniedError, RefusedError) as error:
            self._say(f"note: what arrived for {name} is not shown: {error.message}")
            return ()

    def find(self, name: AccountName, id_: str, role: Role) -> Proposal:
        """Return a proposal; raise `UnknownNameError`."""
        self._broker.account(name, role)  # or raises
        return found(self._records(role).read(name).proposals, name, id_)

    def findings(self, account: Account, one: Proposal, typed: str) -> tuple[Finding, ...]:
        """Return what an import of a proposal would find now, and what was found when it arrived."""
        if not one.material:
            return one.findings
        now = self._judge(account, read_reply(one.material.encode()), typed, Role.AUDITOR)
        codes = {finding.code for finding in now}
        kept = (f for f in one.findings if f.code not in codes and not f.code.startswith("certificate."))
        return (*now, *kept)

    def unwatched(self, subject: Subject) -> tuple[Finding, ...]:
        """Return a warning if the address in a CSR, which the partner's CA writes to, is not the watched mailbox."""
        user, address = self._broker.mail.user(IMAP), subject.get("emailAddress") or ""
        if not self._watched or "@" not in user or not address or user.lower() == address.lower():
            return ()
        message = f"mails of the partner to {address} do not reach the broker, which watches the mailbox of {user}"
        hint = f"have them forwarded, or use --subject emailAddress={user}"
        return (Finding.warning("subject.email.unwatched", message, hint),)

    def conclude(self, name: AccountName, id_: str, outcome: Outcome, reason: str = "") -> bool:
        """Close a proposal; return whether anything changed."""
        return self._replies.conclude(name, id_, outcome, reason)

    @property
    def _watched(self) -> bool:
        return self._broker.mail.has(IMAP)

    def _read_folder(self) -> None:
        folder = Path(self._broker.config["replies.folder"])
        self._replies.read_folder(dropped_files(folder, self._broker.true_clock))

    def _read_mailbox(self) -> None:
        mail, config = self._broker.mail, self._broker.config
        folder, move_to = config["mail.imap.folder"], config["mail.imap.move_to"]
        mailbox = ImapMailbox(mail.server(IMAP), mail.login(IMAP), folder, move_to)
        self._replies.read_mailbox(mailbox, VaultMailboxMarks(self._broker.roles.connection(Role.ROTATOR)))

    def _records(self, role: Role) -> VaultRotationRecords:
        return VaultRotationRecords(self._broker.roles.connection(role))

    @cached_property
    def _replies(self) -> Replies:
        role = Role.ROTATOR
        return Replies(
            records=self._records(role),
            accounts=self._accounts,
            judge=lambda account, parts, typed: self._judge(account, parts, typed, role),
            receive=lambda name, parts: self._broker.rotation.receive(name, parts, ImportOptions()),
            link_time=self._link_time,
            bounced=self._broker.notifying.notices.bounced,
            clock=self._broker.true_clock,
            say=self._say,
        )

    def _accounts(self) -> Iterable[Account]:
        """Return all accounts; a daemon reads only those that changed since its last sweep."""
        standings = self._broker.scheduling.sweeps.standings
        seen = {name: Versioned(one.account, one.version) for name, one in standings.items()}
        return self._broker.roles.accounts(Role.ROTATOR).all(seen).found.values()

    def _judge(self, account: Account, parts: ReplyParts, typed: str, role: Role) -> tuple[Finding, ...]:
        rules = self._broker.profile(account.profile, role).subject
        stamp = Stamp(self._broker.true_clock(), self._broker.actor)
        return judged(account, parts, ImportOptions(typed=typed), rules, stamp)

    def _link_time(self, account: Account) -> timedelta:
        return self._broker.profile(account.profile, Role.ROTATOR).submission.download_within
