"""Letters: what one recipient is sent at one time, by mail or by the webhook."""

from datetime import datetime
from enum import Enum
from hashlib import sha256
from typing import Final

from msgspec import Struct

from broker.model.names import AccountName
from broker.model.notice import Notice
from broker.model.recipient import WEBHOOK, Entry, minutes

_DOMAIN: Final = "credential-broker.invalid"


class LetterKind(Enum):
    """The kinds of letters."""

    ALERT = "alert"  # one notice, on which a person must act
    DIGEST = "digest"  # everything else, once a day
    REMINDER = "reminder"  # to the partner's contact, who did not answer
    TEST = "test"


class Item(Struct, frozen=True):
    """A notice, and the account that it is about."""

    account: AccountName
    notice: Notice

    @property
    def key(self) -> str:
        """The id of the event."""
        return f"{self.account}.{self.notice.event}"


class Letter(Struct, frozen=True):
    """A letter. Repeated, it has the same id, which is also its Message-ID."""

    kind: LetterKind
    to: str  # a mail address, or "webhook"
    id: str
    at: datetime
    items: tuple[Item, ...] = ()
    withdrawn: tuple[Entry, ...] = ()  # from the recipient's calendar

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The calendar entries that it makes or moves: the end of each certificate."""
        if self.to == WEBHOOK or self.kind is LetterKind.REMINDER:
            return ()
        return tuple(Entry(i.account, i.notice.step, minutes(i.notice.at)) for i in self.items if i.notice.expires_at)

    @property
    def message_id(self) -> str:
        """Its Message-ID. The domain has no mailbox."""
        return f"<{self.id}@{_DOMAIN}>"


def letter_id(base: str, to: str) -> str:
    """Return the id of what is sent to one of several recipients. `base` is random, so nobody can guess it."""
    return f"{base}.{sha256(to.encode()).hexdigest()[:8]}"


def is_ours(message_id: str) -> bool:
    """Return whether a Message-ID has the form of ours; mails with signing requests have the same domain."""
    return message_id.strip().endswith(f"@{_DOMAIN}>")


def sent_id(message_id: str) -> str:
    """Return the id of the letter with a Message-ID."""
    return message_id.strip("<> ").removesuffix(f"@{_DOMAIN}")
