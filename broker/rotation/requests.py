"""The rotator's use-cases of signing requests, and of keys that others know."""

from broker.errors import ConflictError, InputError, RefusedError, UnknownNameError
from broker.model.account import Account
from broker.model.changes.compromising import certificate_revoked, compromised
from broker.model.changes.requesting import (
    closed,
    requested,
    requested_with_same_key,
    reusable_request,
    submitted,
    without_key,
)
from broker.model.clock import Stamp
from broker.model.generation import Closed, SigningRequest, Submission
from broker.model.names import AccountName
from broker.rotation.amend import UseCase
from broker.rotation.ports import Keys, ReadProfile


class Requests(UseCase, frozen=True):
    """Signing requests: drafted, submitted, closed."""

    profile: ReadProfile
    keys: Keys

    def draft(self, name: AccountName) -> SigningRequest:
        """Return the account's open signing request, making one if it has none.

        Two writes, in this order: the key into the next free slot, then the account with the CSR. After a kill between
        the two, the next run adopts the key in the slot. Two concurrent runs share the slot's key, and the one whose
        write of the account fails returns the other's CSR, or raises `ConflictError` if that was closed since.
        """
        seen = self.seen(name)
        request = seen.open_request or self._drafted(seen)
        self.settle(name)
        return request

    def _drafted(self, seen: Account) -> SigningRequest:
        name, first, rules = seen.name, seen.next_request, self.profile(seen).key
        now = self.clock()  # a wrong clock is refused here, before a key is stored
        try:
            slot, (key, spki) = self.in_free_slot(name, first, lambda number: self.keys.ensure(name, number, rules))
            csr = self.keys.sign_request(name, key, seen.subject, rules)
        except (RefusedError, UnknownNameError):
            seen = self.seen(name)
            if seen.next_request == first:
                raise
            return _taken(seen, first)  # its key is gone: the request was closed, or has another key
        request = SigningRequest(slot, key, spki, csr, drafted_at=now)

        def add(account: Account, stamp: Stamp) -> Account:
            if account.next_request > slot:
                return without_key(account, slot, key)
            return requested(account, request, by=stamp.by)

        return _taken(self.amend(name, add).account, slot)

    def draft_with_same_key(self, name: AccountName) -> SigningRequest:
        """Return the open signing request, making one with the key of the current generation if it has none.

        Raise what `reusable` raises, and `ConflictError` if a request with another key is open.
        """
        with self.settling(name):
            seen = self.seen(name)
            before = self.reusable(seen)
            csr = self.keys.sign_request(name, before.key, seen.subject, self.profile(seen).key)
            number, now = seen.next_request, self.clock()
            request = SigningRequest(number, before.key, before.spki, csr, drafted_at=now)

            def add(account: Account, stamp: Stamp) -> Account:
                if account.open_request or account.next_request > number:
                    return account
                return requested_with_same_key(account, request, by=stamp.by)

            after = self.amend(name, add).account
            drafted = after.open_request
            if drafted is None or drafted.key != before.key:
                raise ConflictError(
                    f"a signing request of {name} with another key was drafted before",
                    hint=f"broker csr cancel {name} closes it; then this command again" if drafted else "try again",
                )
            return drafted

    def reusable(self, account: Account) -> SigningRequest:
        """Return the request whose key the next one may have too; raise `RefusedError` if a new key is required."""
        if self.profile(account).key.reuse:
            return reusable_request(account)
        raise RefusedError(
            f"the profile {account.profile} does not allow another certificate for the same key",
            hint=f"broker csr new {account.name} makes a new key",
        )

    def report_compromise(self, name: AccountName, reason: str, *, suspend: bool) -> SigningRequest:
        """Record that others know the current key, and return the open request with a new key, making one."""
        self.amend(name, lambda account, stamp: compromised(account, reason, stamp, suspend=suspend))
        return self.draft(name)

    def revoked(self, name: AccountName, number: int, reason: str = "") -> bool:
        """Record that the partner revoked the certificate of generation `number`; return whether anything changed."""
        change = self.settled(name, lambda account, stamp: certificate_revoked(account, number, reason, stamp))
        return change.changed

    def submit(self, name: AccountName, number: int, submission: Submission) -> SigningRequest:
        """Record that the CSR of request `number` was sent; repeating it changes nothing.

        The lead time counts from then on. Raise `RefusedError` if the request is closed, `InputError` if it was drafted
        later than it was sent.
        """
        request = self.seen(name).request(number)
        if submission.at < request.drafted_at:
            raise InputError(
                f"signing request {number} was drafted at {request.drafted_at:%F %TZ}, later than --sent-at",
                hint="--sent-at takes the time of the mail in UTC, such as 2026-03-01T09:30",
            )
        done = self.settled(name, lambda account, stamp: submitted(account, number, submission, by=stamp.by))
        return done.account.request(number)

    def close_request(self, name: AccountName, why: Closed, number: int, because: str = "") -> SigningRequest:
        """Close request `number`. Its key is destroyed when the account is settled."""
        after = self.settled(name, lambda newest, stamp: closed(newest, number, why, stamp, because)).account
        return after.request(number)


def _taken(account: Account, slot: int) -> SigningRequest:
    """Return the open request `slot`, which another command may have drafted; raise `ConflictError` if it is closed."""
    request = next((r for r in account.requests if r.number == slot), None)
    if request and request.closed is None:
        return request
    closed = (request and request.closed) or Closed.SUPERSEDED  # no request: it was passed over
    raise ConflictError(
        f"signing request {slot} of {account.name} was drafted by another command and {closed.value} meanwhile",
        hint="the same command again makes a new one",
    )
