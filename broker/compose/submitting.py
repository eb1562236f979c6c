"""The ways by which a machine submits a signing request, connected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from broker.copies import replace
from broker.errors import InputError, RefusedError
from broker.model.account import Account
from broker.model.channel import Channel
from broker.model.finding import Finding
from broker.model.generation import SigningRequest, Submission
from broker.model.role import Role
from broker.partners.planned import channel_of
from broker.people.eml import csr_mail, for_contact, refusal
from broker.people.submission import SendByMail, Sent
from broker.pki.reply import read_reply
from broker.rotation.receive import ImportOptions
from broker.vault.pki_engine import sign
from broker.vault.scheduler_state import VaultRotationRecords

if TYPE_CHECKING:  # a cycle: `Broker` offers this
    from broker.compose.graph import Broker


class Submitting:
    """Submissions of the rotator."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def channel(self, account: Account) -> Channel:
        """Return the account's channel, else its profile's."""
        return channel_of(account, self._broker.profile(account.profile, Role.ROTATOR))

    def refusal(self, account: Account, findings: Sequence[Finding]) -> bytes:
        """Return a draft of the mail that tells the partner's people what is wrong with their reply.

        Raise `RefusedError` if nothing of it is theirs to correct.
        """
        request, theirs = account.open_request, for_contact(findings)
        if request is None or not theirs:
            raise RefusedError("no mail is written: the partner has nothing to correct in this reply")
        profile = self._broker.profile(account.profile, Role.ROTATOR)
        mail = replace(csr_mail(account, request, profile, (), self._broker.clock()), date=self._broker.clock())
        answered = next((s.message_id for s in reversed(request.submissions) if s.message_id), "")
        return refusal(mail, profile.submission.text(account.language), theirs, answered)

    def by_machine(self, account: Account, request: SigningRequest) -> Submission | None:
        """Submit `request` if its channel needs no person, else return None: `scheduling.ports.Submit`."""
        match self.channel(account):
            case Channel.SMTP:
                return self.by_mail(account, request).submission
            case Channel.VAULT_PKI:
                return self.by_pki(account, request)
        return None

    def by_pki(self, account: Account, request: SigningRequest) -> Submission:
        """Have Vault's PKI sign `request`, and import the answer as a reply of the partner.

        The submission is recorded first. If it was killed after that, the next sweep asks again.
        """
        broker, name = self._broker, account.name
        role = broker.config.accounts.get(name, {}).get("pki", "")
        if not role:
            hint = f'pki = "MOUNT/ROLE" under [accounts.{name}] in broker.toml'
            raise InputError(f"no role of Vault's PKI signs for {name}", hint=hint)
        submission = Submission(broker.true_clock(), Channel.VAULT_PKI.value, reference=role)
        broker.rotation.submit(name, request.number, submission)
        reply = read_reply(sign(broker.roles.connection(Role.ROTATOR), role, request.csr))
        broker.rotation.receive(name, reply, ImportOptions())
        return submission

    def by_mail(self, account: Account, request: SigningRequest, to: Sequence[str] = ()) -> Sent:
        """Send the mail with `request`, unless it was sent before."""
        broker = self._broker
        if not account.open_request or account.open_request.number != request.number:
            raise RefusedError(f"signing request {request.number} of {account.name} is not open: no mail is sent")
        records = VaultRotationRecords(broker.roles.connection(Role.ROTATOR))
        read = broker.roles.accounts(Role.ROTATOR).read
        send = SendByMail(
            broker.mail.mailer,
            records,
            lambda name: read(name).account,
            broker.rotation.submit,
            broker.true_clock,
        )
        sent = send(account, request, broker.profile(account.profile, Role.ROTATOR), to)
        if sent.before:  # its sender may have been killed before it settled
            broker.settle(account.name)
        return sent
