"""Send a signing request to the partner's people by SMTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.channel import Channel
from broker.model.clock import Clock
from broker.model.generation import SigningRequest, Submission
from broker.model.names import AccountName
from broker.model.outgoing import OutgoingMail
from broker.model.rotation_record import RotationRecord
from broker.partners.profile import MailText, Profile
from broker.people.eml import CsrMail, csr_mail, written
from broker.people.smtp import Mailer
from broker.scheduling.ports import Records

_SMTP: Final = Channel.SMTP.value


@dataclass(frozen=True, slots=True)
class Sent:
    """A mail that was sent now or `before`, and the recipients that the server refused."""

    submission: Submission
    refused: tuple[str, ...] = ()
    before: bool = False


@dataclass(frozen=True, slots=True)
class SendByMail:
    """Sends a signing request by mail: fixed and stored first, then sent, then recorded.

    Whoever is killed in between, or does it at the same time, sends the same bytes under the same Message-ID.
    """

    mailer: Callable[[], Mailer]
    records: Records
    read: Callable[[AccountName], Account]
    submit: Callable[[AccountName, int, Submission], SigningRequest]
    clock: Clock

    def __call__(self, account: Account, request: SigningRequest, profile: Profile, to: Sequence[str] = ()) -> Sent:
        """Send `request`, unless it was sent; raise what `Mailer.deliver` raises, or `RefusedError`."""
        name, number = account.name, request.number
        mail = csr_mail(account, request, profile, to, self.clock())
        if sent := _sent(account, number, mail.message_id):
            return self._sent_before(account, number, sent, to)
        mailer = self.mailer()
        text = profile.submission.text(account.language)
        fixed = self._fixed(name, replace(mail, sender=mailer.sender), text)
        _refuse_others(account, number, fixed.to, to)
        newest = self.read(name)  # after the mail is fixed: whoever sent it meanwhile may have forgotten it
        if sent := _sent(newest, number, mail.message_id):
            return self._sent_before(account, number, sent, to)
        if why := newest.request(number).closed:
            raise RefusedError(f"signing request {number} of {name} was {why.value}: no mail is sent")
        refused = mailer.deliver(fixed.content.encode("ascii"), fixed.to)
        accepted = ", ".join(address for address in fixed.to if address not in refused)
        submission = Submission(self.clock(), _SMTP, accepted, message_id=mail.message_id)
        self.submit(name, number, submission)
        self._forget(name, mail.message_id)
        return Sent(submission, refused)

    def _fixed(self, name: AccountName, mail: CsrMail, text: MailText) -> OutgoingMail:
        """Return the mail as it was stored first, by whichever process."""
        made = OutgoingMail(mail.number, mail.message_id, mail.date, mail.to, written(mail, text).decode("ascii"))

        def fix(record: RotationRecord) -> RotationRecord:
            others = (known for known in record.sent if known.request == mail.number)  # older ones are over
            return record if _known(record, mail.message_id) else replace(record, sent=(*others, made))

        return _known(self.records.change(name, fix), mail.message_id) or made

    def _sent_before(self, account: Account, number: int, sent: Submission, to: Sequence[str]) -> Sent:
        _refuse_others(account, number, sent.to.split(", "), to)
        self._forget(account.name, sent.message_id)
        return Sent(sent, before=True)

    def _forget(self, name: AccountName, message_id: str) -> None:
        self.records.change(
            name, lambda record: replace(record, sent=tuple(m for m in record.sent if m.message_id != message_id))
        )


def _sent(account: Account, number: int, message_id: str) -> Submission | None:
    submissions = account.request(number).submissions
    return next((s for s in submissions if (s.via, s.message_id) == (_SMTP, message_id)), None)


def _known(record: RotationRecord, message_id: str) -> OutgoingMail | None:
    return next((mail for mail in record.sent if mail.message_id == message_id), None)


def _refuse_others(account: Account, number: int, sent: Sequence[str], to: Sequence[str]) -> None:
    others = [address for address in to if address not in sent]
    if others:
        raise RefusedError(
            f"the mail with signing request {number} of {account.name} goes to {', '.join(sent)}",
            hint=f"broker csr submit {account.name} --via eml --to {others[0]} writes one for another person",
        )
