"""Replies that arrive by mail or in the drop folder: each becomes a proposal of the account that it is about.

No mail closes a request, destroys a key, fetches a link or sends a mail. A file that a person put into the folder is
imported if it needs no decision.

A kill in between loses nothing: the mark follows the proposals, and the same mail makes the same proposal.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError, InputError, RefusedError
from broker.model.account import Account
from broker.model.finding import Finding, has_errors
from broker.model.names import AccountName
from broker.model.proposal import Arrival, Bounce, Outcome, Proposal, concluded, found, proposed, reply_id
from broker.model.rotation_record import RotationRecord
from broker.pki.reply import ReplyParts
from broker.scheduling.incoming import Incoming, read_file, read_mail, too_large
from broker.scheduling.matching import Match, bounced, differs, matches, proposal, undelivered
from broker.scheduling.ports import Records


class Mark(Struct, frozen=True):
    """The last mail that was read. UIDs rise within a UIDVALIDITY (RFC 3501, 2.3.1.1)."""

    mailbox: str = ""  # server, user and folder
    validity: int = 0
    uid: int = 0
    at: datetime | None = None  # of the last poll


class Letter(Struct, frozen=True):
    """A mail as it was fetched: only its headers, if `data` is less than `size` octets."""

    uid: int
    received: datetime
    size: int
    data: bytes
    put_away: Callable[[], None] = lambda: None  # moves it to another folder, if one is configured


class Mailbox(Protocol):
    """The watched mailbox. It is only read, unless a folder to move mails to is configured."""

    def arrived(self, after: Mark, now: datetime) -> Generator[tuple[Letter | None, Mark], None, None]:
        """Yield a bounded number of mails after the mark, the oldest first, each with the mark once it is read.

        None stands for a mail that is gone, and for none at all. Raise `BrokerError`.
        """


class Marks(Protocol):
    """The stored mark, under compare-and-set."""

    def read(self) -> Mark:
        """Return the mark, an empty one if there is none."""

    def advance(self, mark: Mark) -> None:
        """Store the mark, unless a later one of the same mailbox is stored."""


class Dropped(Struct, frozen=True):
    """A file in the drop folder. `data` is an error if it cannot be read."""

    name: str
    received: datetime
    data: bytes | BrokerError
    move: Callable[[str, str], None]  # to a folder, with a text beside it that says why


class Replies(Struct, frozen=True):
    """The use-cases of replies. Accounts are read only if something arrived."""

    records: Records
    accounts: Callable[[], Iterable[Account]]
    judge: Callable[[Account, ReplyParts, str], Sequence[Finding]]  # as an import would, without storing anything
    receive: Callable[[AccountName, ReplyParts], object]  # imports
    link_time: Callable[[Account], timedelta]
    bounced: Callable[[Bounce], None]  # for those who sent the mail
    clock: Callable[[], datetime]
    say: Callable[[str], None]

    def read_mailbox(self, mailbox: Mailbox, marks: Marks) -> None:
        """Make proposals of the mails that arrived. What was read before an error is not read again."""
        accounts: Sequence[Account] | None = None
        mark: Mark | None = None
        try:
            with closing(mailbox.arrived(marks.read(), self.clock())) as arrived:
                for letter, reached in arrived:
                    if letter:
                        accounts = tuple(self.accounts()) if accounts is None else accounts
                        self._note_letter(letter, accounts)
                    mark = reached
        finally:
            if mark is not None:
                marks.advance(mark)

    def _note_letter(self, letter: Letter, accounts: Sequence[Account]) -> None:
        """Note what a mail proposes. A damaged record, or a mail that cannot be moved, stops no other mail."""
        try:
            if self._read(_opened(letter), accounts):
                letter.put_away()
        except (RefusedError, InputError) as error:
            self.say(f"mail {letter.uid} is left in the mailbox: {error.message}")

    def _read(self, arrived: Incoming, accounts: Sequence[Account]) -> list[Match]:
        """Note what a mail proposes; return the accounts that it is about."""
        if not arrived.is_report:
            found = matches(arrived, accounts)
            for match in found:
                if not match.known or arrived.tells_expiry:  # else it was imported before
                    self._note(match.account, self._proposal(arrived, match))
            return found
        found = []
        for bounce in arrived.bounces:
            self.bounced(bounce)
            for match in bounced(bounce, accounts):
                self._note(match.account, undelivered(arrived, bounce, match))
                found.append(match)
        return found

    def read_folder(self, files: Iterable[Dropped]) -> None:
        """Import the files that need no decision, make proposals of the others, and move all of them away."""
        accounts: Sequence[Account] | None = None
        for file in files:
            if isinstance(file.data, BrokerError):
                file.move("refused", f"{file.data.message}\n{file.data.hint}\n")
                continue
            accounts = tuple(self.accounts()) if accounts is None else accounts
            try:
                file.move(*self._taken(read_file(file.name, file.data, file.received), accounts))
            except RefusedError as error:
                self.say(f"{file.name} is left in the folder: {error.message}")

    def _taken(self, arrived: Incoming, accounts: Sequence[Account]) -> tuple[str, str]:
        """Take what a person dropped; return the folder for it, and the result."""
        results = [self._imported_or_noted(arrived, match) for match in matches(arrived, accounts)]
        if results:
            return "done", "".join(results)
        reasons = [f"{f.message}\n{f.hint}\n" for f in arrived.findings]
        return "refused", "it fits no signing request of any account\n" + "".join(reasons)

    def _imported_or_noted(self, arrived: Incoming, match: Match) -> str:
        new = self._proposal(arrived, match)
        name, id_ = match.account.name, reply_id(match.account.name, new)
        if new.kind is Arrival.REPLY and arrived.parts and match.by_key and not has_errors(new.findings):
            try:
                self.receive(name, arrived.parts)
            except RefusedError as error:
                self._note(match.account, new)
                return f"{error.message}\nnext: broker reply show {id_}\n"
            return f"imported into {name}\nnext: broker rotation promote {name}\n"
        self._note(match.account, new)
        return f"it needs a decision\nnext: broker reply show {id_}\n"

    def _proposal(self, arrived: Incoming, match: Match) -> Proposal:
        command = f"broker cert import {match.account.name} --reply {match.account.name}/{arrived.id}"
        judged = self.judge(match.account, arrived.parts, command) if arrived.parts else ()
        return proposal(arrived, match, judged, self.link_time(match.account))

    def _note(self, account: Account, new: Proposal) -> None:
        def noted(record: RotationRecord) -> RotationRecord:
            others = [p for p in record.proposals if p.id != new.id]
            findings = (*new.findings, *differs(new, others, account)) if new.kind is Arrival.REPLY else new.findings
            return replace(record, proposals=proposed(record.proposals, replace(new, findings=findings)))

        self.records.change(account.name, noted)

    def find(self, name: AccountName, id_: str) -> Proposal:
        """Return a proposal; raise `UnknownNameError`."""
        return found(self.records.read(name).proposals, name, id_)

    def conclude(self, name: AccountName, id_: str, outcome: Outcome, reason: str = "") -> bool:
        """Close a proposal; return whether anything changed. Raise as `concluded`, or the clock's `RefusedError`."""
        self.clock()
        before = self.find(name, id_)
        after = self.records.change(
            name, lambda record: replace(record, proposals=concluded(record.proposals, name, id_, outcome, reason))
        )
        return before not in after.proposals


def _opened(letter: Letter) -> Incoming:
    whole = len(letter.data) >= letter.size
    return read_mail(letter.data, letter.received) if whole else too_large(letter.data, letter.size, letter.received)
