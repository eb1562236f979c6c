"""Send a signing request to the partner's people by SMTP."""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.channel import Channel
from broker.model.clock import Clock
from broker.model.generation import SigningRequest, Submission
from broker.model.names import AccountName
from broker.model.rotation_record import OutgoingMail, RotationRecord
from broker.partners.profile import MailText, Profile
from broker.people.eml import CsrMail, csr_mail, written
from broker.people.smtp import Mailer
from broker.scheduling.ports import Records

_SMTP: Final = Channel.SMTP.value
_MOST: Final = 4  # mails that are fixed and not sent, for different recipients


class Sent(Struct, frozen=True):
    """A mail that was sent now or `before`, and the recipients that the server refused."""

    submission: Submission
    refused: tuple[str, ...] = ()
    before: bool = False


class SendByMail(Struct, frozen=True):
    """Sends a signing request by mail: fixed and stored first, then sent, then recorded.

    After a kill in between, or from two processes concurrently, the same bytes are sent under the same Message-ID.
    """

    mailer: Callable[[], Mailer]
    records: Records
    read: Callable[[AccountName], Account]
    submit: Callable[[AccountName, int, Submission], SigningRequest]
    clock: Clock

    def __call__(self, account: Account, request: SigningRequest, profile: Profile, to: Sequence[str] = ()) -> Sent:
        """Send `request`, unless it was sent; raise what `Mailer.deliver` raises, or `RefusedError`.

        For each `to` it is another mail: an address may have been wrong.
        """
        name, number = account.name, request.number
        mail = replace(csr_mail(account, request, profile, to, self.clock()), copy_to=tuple(to))
        if sent := _sent(account, number, mail.message_id):
            return self._sent_before(name, sent)
        mailer = self.mailer()
        text = profile.submission.text(account.language)
        fixed = self._fixed(name, replace(mail, sender=mailer.sender), text)
        newest = self.read(name)  # after the mail is fixed: another process may have sent it meanwhile
        if sent := _sent(newest, number, mail.message_id):
            return self._sent_before(name, sent)
        if why := newest.request(number).closed:
            raise RefusedError(f"signing request {number} of {name} was {why.value}: no mail is sent")
        refused = mailer.deliver(fixed.content.encode(), fixed.to)
        accepted = ", ".join(address for address in fixed.to if address not in refused)
        submission = Submission(self.clock(), _SMTP, accepted, message_id=mail.message_id)
        self.submit(name, number, submission)
        self._forget(name, mail.message_id)
        return Sent(submission, refused)

    def _fixed(self, name: AccountName, mail: CsrMail, text: MailText) -> OutgoingMail:
        """Return the mail as the first process stored it."""
        made = OutgoingMail(mail.number, mail.message_id, mail.date, mail.to, written(mail, text).decode())

        def fix(record: RotationRecord) -> RotationRecord:
            others = tuple(known for known in record.sent if known.request == mail.number)  # older ones are over
            return record if _known(record, mail.message_id) else replace(record, sent=(*others, made)[-_MOST:])

        return _known(self.records.change(name, fix), mail.message_id) or made

    def _sent_before(self, name: AccountName, sent: Submission) -> Sent:
        self._forget(name, sent.message_id)
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
