"""From a signing request to a retired set: the rotator's use-cases."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from broker.errors import ConflictError, InputError, RefusedError, UnknownNameError, WaitingError
from broker.model.account import Account
from broker.model.changes import (
    CanaryOutcome,
    breaker_reset,
    canary_answered,
    canary_sent,
    closed,
    joined,
    joined_form,
    moved,
    requested,
    require_move,
    restored,
    submitted,
)
from broker.model.generation import Closed, Generation, Parts, SigningRequest, Submission, Try
from broker.model.names import AccountName
from broker.model.stage import Move, Stage
from broker.model.stamp import Stamp
from broker.partners.verdict import Verdict
from broker.pki.reply import read_reply
from broker.rotation.amend import amend
from broker.rotation.canary import require_ok
from broker.rotation.choosing import Promotion, newest_candidate, rollback_target, way_back
from broker.rotation.ports import Canary, CanaryResult, Keys, ReadProfile, Stragglers
from broker.rotation.receive import ImportOptions, Received, Reply
from broker.rotation.usecase import UseCase

__all__ = ["Rotation"]


@dataclass(frozen=True, slots=True)
class Rotation(UseCase):
    """The rotator's use-cases; `try_out` needs no more than what the canary role may do."""

    profile: ReadProfile
    keys: Keys
    canary: Canary
    stragglers: Stragglers

    # signing requests

    def draft(self, name: AccountName) -> SigningRequest:
        """Return the account's open signing request, making one if it has none.

        Two writes, in this order and no other: the key into the next free slot, then the account with the CSR in it. A
        CSR is shown only as stored in the account. Killed between the two, the next run adopts the key in the slot; two
        concurrent runs share the slot's key, and the one that loses the account returns the winner's CSR, or raises
        `ConflictError` if that has been closed since.
        """
        seen = self.accounts.read(name).account
        request = seen.open_request or self._drafted(seen)
        self.settle(name)
        return request

    def _drafted(self, seen: Account) -> SigningRequest:
        name, slot, rules = seen.name, seen.next_request, self.profile(seen).key
        now = self.clock()  # a wrong clock is refused here, before a key is stored
        try:
            key, spki = self.keys.ensure(name, slot, rules)
            csr = self.keys.sign_request(name, key, seen.subject, rules)
        except (RefusedError, UnknownNameError):
            _refuse_overtaken(self.accounts.read(name).account, slot)  # then the key is gone, and that is no fault
            raise
        request = SigningRequest(slot, key, spki, csr, drafted_at=now)

        def add(account: Account, stamp: Stamp) -> Account:
            return account if account.next_request > slot else requested(account, request, by=stamp.by)

        after = self.amend(name, add)
        _refuse_overtaken(after, slot)
        return after.request(slot)

    def submit(self, name: AccountName, number: int, submission: Submission) -> SigningRequest:
        """Note that the CSR of request `number` was sent; the same evidence a second time changes nothing.

        The lead time counts from then on. Raise `RefusedError` if it waits no longer: the lead time of another that was
        opened since must not begin; `InputError` if it was drafted later than sent.
        """
        request = self.accounts.read(name).account.request(number)
        if submission.at < request.drafted_at:
            raise InputError(
                f"signing request {number} was drafted at {request.drafted_at:%F %TZ}, after it is said to be sent",
                hint="--sent-at takes the time of the mail in UTC, such as 2026-03-01T09:30",
            )
        after = self.settled(name, lambda account, stamp: submitted(account, number, submission, by=stamp.by))
        return after.request(number)

    def close_request(self, name: AccountName, why: Closed, number: int = 0) -> SigningRequest:
        """Close request `number`, or the open one. Its key is destroyed when the account is settled."""
        account = self.accounts.read(name).account
        if not number:
            if account.open_request is None:
                raise RefusedError(f"{name} has no open signing request", hint=f"broker csr new {name} makes one")
            number = account.open_request.number
        return self.settled(name, lambda newest, stamp: closed(newest, number, why, stamp)).request(number)

    def receive(self, name: AccountName, data: bytes, said: ImportOptions) -> Received:
        """Turn a reply into a candidate, in one write; the same reply a second time returns the same generation.

        Raise `RefusedError` when it fits no key of the account, `LateReplyError` when the request it answers was
        closed, `UnknownAuthorityError` for a CA nobody accepted, `FindingsError` with all that verification found, and
        `InputError` for what cannot be read. Nothing is stored in any of these cases.
        """
        rules = self.profile(self.accounts.read(name).account).subject
        reply = Reply(read_reply(data), said, rules)
        after = self.amend(name, reply.admitted)
        received = reply.received(after)
        self.settle(name)
        return received

    # tries

    def try_out(self, name: AccountName, number: int) -> CanaryResult:
        """Try a generation against the partner, and change nothing but the record of the try."""
        with self.settling(name):
            seen = self.accounts.read(name).account
            return self._tried(seen, seen.generation(number))

    def _tried(self, seen: Account, generation: Generation) -> CanaryResult:
        """Prepare a try of the set that `generation` makes of `seen`, reserve it, send it, and store the verdict.

        Killed in between, the try stays on the account without an answer, and counts: a crash that repeats cannot lock
        the login out unseen. Raise what `canary_sent` raises if no try is allowed.
        """
        name, number, parts, id_ = seen.name, generation.number, seen.parts_of(generation), secrets.token_hex(8)
        send = self.canary(seen, parts)
        account = self.amend(name, lambda newest, stamp: canary_sent(newest, number, parts, id_, stamp))
        attempt = next(t for t in account.tries if t.id == id_)
        answer = send()
        stamp = self._answered_at(attempt)
        amend(
            self.accounts,
            name,
            lambda newest: canary_answered(newest, attempt.number, _outcome(answer, seen, newest), stamp),
        )
        return answer

    def _answered_at(self, attempt: Try) -> Stamp:
        """Return the time, that of sending if the clock went wrong since: a verdict is stored in any case."""
        try:
            return self.stamp()
        except RefusedError:
            return Stamp(attempt.at, self.actor)

    def reset_breaker(self, name: AccountName, reason: str) -> Account:
        """Allow tries again, because a person says so."""
        return self.settled(name, lambda account, stamp: breaker_reset(account, reason, stamp))

    # moves

    def join(self, name: AccountName, one: int, other: int) -> Generation:
        """Return a candidate that changes what two candidates change, such as a certificate and a password.

        The same two again return what they were joined into. Raise `RefusedError` if they change the same part.
        """
        after = self.amend(name, lambda account, stamp: joined(account, one, other, stamp))
        self.settle(name)
        made = joined_form(after, after.generation(one), after.generation(other))
        assert made  # `joined` made it, or found it
        return made

    def promote(self, name: AccountName, number: int = 0) -> Promotion:
        """Lay candidate `number` over the current set, try that, and make it current if the partner accepts it.

        0 is the newest that no roll-back made; if there is none, the current one is reported and nothing done. A number
        may also name the generation that the last roll-back displaced. The try comes before the move, so a kill leaves
        everything as it was or finished. If another became current in between, it must be tried again: `ConflictError`.
        """
        with self.settling(name):
            seen = self.accounts.read(name).account
            current = seen.current
            if current and not number and not seen.automatic_candidates:
                return Promotion(seen, current.number, changed=False)
            wanted = seen.generation(number) if number else newest_candidate(seen)
            if current and wanted.stage is Stage.PREVIOUS and wanted.parts.certified == current.parts.certified:
                return Promotion(seen, current.number, changed=False)
            return self._made_current(seen, wanted, Move.PROMOTE)

    def roll_back(self, name: AccountName, number: int = 0, *, untried_because: str = "") -> Promotion:
        """Bring the certificate of previous generation `number` back over the newest proven secrets and CAs.

        0 is the one that the current one displaced. Where secrets or CAs changed since, this makes a new generation. It
        is tried first, unless a person gives a reason why not. The displaced generation becomes previous, and only a
        person, naming it, promotes it again. After a roll-back the same again reports it and changes nothing.
        """
        with self.settling(name):
            seen = self.accounts.read(name).account
            wanted, current = (seen.generation(number) if number else None), seen.current
            back = current and (wanted is None or wanted.parts.certified == current.parts.certified)
            if current and (wanted is current or (back and any(map(seen.rolled_back, seen.generations)))):
                return Promotion(seen, current.number, changed=False)
            return self._made_current(seen, wanted or way_back(seen), Move.ROLL_BACK, untried_because)

    def _made_current(self, seen: Account, wanted: Generation, move: Move, untried_because: str = "") -> Promotion:
        name, displaced = seen.name, seen.current
        if wanted.stage is not Stage.CURRENT:
            require_move(seen, wanted, move)
        seen = self.amend(name, lambda account, stamp: restored(account, wanted.number, stamp))
        target = rollback_target(seen, wanted)
        if moved(seen, target.number, move, self.stamp()) == seen:  # or refuses, in the table's words
            return Promotion(seen, target.number, changed=False)
        parts, answer, back = seen.parts_of(target), None, None
        if not untried_because:
            answer = self._tried(seen, target)
            require_ok(name, target.number, answer)
            back = self._way_back(seen, parts) if move is Move.PROMOTE else None

        def finish(account: Account, stamp: Stamp) -> Account:
            newest = account.generation(target.number)
            if newest.stage is not Stage.CURRENT:
                _refuse_changed(account, newest, target, parts)
                if move is Move.ROLL_BACK:
                    _refuse_displaced(account, displaced)
            return moved(account, target.number, move, stamp, untried_because)

        return Promotion(self.amend(name, finish), target.number, answer, back)

    def _way_back(self, seen: Account, parts: Parts) -> CanaryResult | None:
        """Try the current set too, so that rolling back is known good; never a superseded secret.

        That no try is allowed now (one is on its way, the partner wants a pause) does not hold up the promotion.
        """
        if seen.current is None or seen.current.parts.secrets != parts.secrets:
            return None
        try:
            return self._tried(seen, seen.current)
        except (ConflictError, RefusedError, WaitingError):
            return None

    def reject(self, name: AccountName, number: int, reason: str) -> bool:
        """Withdraw a candidate; return whether that was left to do."""
        changed = self.amend_and_tell(
            name, lambda account, stamp: moved(account, number, Move.REJECT, stamp, reason=reason)
        )
        self.settle(name)
        return changed

    def retire(self, name: AccountName, number: int, reason: str = "") -> bool:
        """Retire generation `number`, in one write that also dooms its secrets unless a living generation shares them.

        From then on nothing hands the set out; `settle` destroys the key. Raise `WaitingError` while consumers hold it,
        unless a person gives a `reason`, and `ConflictError` if it was current again since they were counted: others
        may have been handed it then. If it is retired already nothing is done; return whether anything was.
        """
        changed = self._retired(name, number, reason)
        self.settle(name)
        return changed

    def _retired(self, name: AccountName, number: int, reason: str) -> bool:
        seen = self.accounts.read(name).account
        if moved(seen, number, Move.RETIRE, self.stamp()) == seen:  # else allowed by the table, or refused here
            return False
        holding = self.stragglers(name, number)
        if holding and not reason:
            raise WaitingError(
                f"generation {number} of {name} is still held by {', '.join(sorted(holding))}",
                hint="wait for them, or --force --reason TEXT",
            )

        def ended(newest: Account, stamp: Stamp) -> Account:
            generation = newest.generation(number)
            if generation.stage.living and generation.order != seen.generation(number).order:
                raise ConflictError(
                    f"generation {number} of {name} is {generation.stage.value} since {generation.since:%F %TZ}, "
                    "and was not when its holders were counted",
                    hint="the same command again counts them anew",
                )
            return moved(newest, number, Move.RETIRE, stamp, reason=reason)

        return self.amend_and_tell(name, ended)


def _refuse_overtaken(account: Account, slot: int) -> None:
    closed = account.request(slot).closed if account.next_request > slot else None
    if closed:
        raise ConflictError(
            f"signing request {slot} of {account.name} was drafted by another and {closed.value} meanwhile",
            hint="the same command again begins a new one",
        )


def _refuse_changed(account: Account, newest: Generation, target: Generation, parts: Parts) -> None:
    if newest.stage is Stage.PREVIOUS and newest.order != target.order:
        raise ConflictError(f"a roll-back displaced generation {target.number} of {account.name} meanwhile")
    if account.current and newest.stage is target.stage and account.parts_of(newest) != parts:
        raise ConflictError(
            f"generation {account.current.number} of {account.name} became current since generation {target.number} "
            "was tried",
            hint=f"broker rotation status {account.name}; the same command again tries it with what is current now",
        )


def _refuse_displaced(account: Account, displaced: Generation | None) -> None:
    now = account.current
    if now and displaced and now.number != displaced.number:
        raise ConflictError(
            f"generation {now.number} of {account.name} became current meanwhile",
            hint=f"broker rotation status {account.name}; the same command again goes back from that one",
        )


def _outcome(answer: CanaryResult, seen: Account, newest: Account) -> CanaryOutcome:
    rejected = answer.verdict is Verdict.CLIENT_REJECTED
    sent = next((a for a in seen.applications if rejected and a.name == answer.application), None)
    return CanaryOutcome(
        answer.verdict.value,
        login_rejected=answer.verdict is Verdict.LOGIN_REJECTED,
        client_rejected=sent.name if sent in newest.applications else "",  # it may have another client_id by now
        wait=answer.wait,
    )
