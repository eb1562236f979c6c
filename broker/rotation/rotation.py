"""The rotator's use-cases: from a signing request to a retired generation."""

import secrets
import shlex
from collections.abc import Callable, Iterator
from datetime import datetime

from broker.copies import replace
from broker.errors import ConflictError, RefusedError, WaitingError
from broker.model.account import Account
from broker.model.changes.importing import copy_gone
from broker.model.changes.moving import (
    displaced_generation,
    generation_to_try,
    joined,
    joined_form,
    moved,
    require_move,
    restored,
    rollback_target,
)
from broker.model.changes.registering import removed, snooze_ended, snoozed
from broker.model.changes.trying import breaker_reset, canary_answered, canary_sent
from broker.model.clock import Stamp
from broker.model.generation import Generation, Parts, Try
from broker.model.names import AccountName
from broker.model.stage import Move, Stage
from broker.model.verdict import CanaryResult, Verdict
from broker.pki.reply import ReplyParts
from broker.rotation.amend import amend
from broker.rotation.ports import Canary, Others, Stragglers
from broker.rotation.receive import ImportOptions, Received, Reply
from broker.rotation.reports import Promotion, require_ok
from broker.rotation.requests import Requests


class Rotation(Requests, frozen=True):
    """The rotator's use-cases."""

    canary: Canary
    stragglers: Stragglers
    others: Others = tuple
    wait_for_services: Callable[[datetime], None] = lambda _: None  # until none hands out what was current till then

    # decisions of a person

    def snooze(self, name: AccountName, until: datetime, reason: str) -> bool:
        """Put the renewal off until a time; return whether anything changed."""
        return self.settled(name, lambda account, stamp: snoozed(account, until, reason, stamp)).changed

    def end_snooze(self, name: AccountName) -> bool:
        """Start the renewal when it is due again; return whether anything changed."""
        return self.settled(name, snooze_ended).changed

    def receive(self, name: AccountName, parts: ReplyParts, options: ImportOptions) -> Received:
        """Turn a reply into a candidate, in one write; the same reply a second time returns the same generation.

        Raise `RefusedError` if it fits no key of the account, `LateReplyError` if its request was closed,
        or `FindingsError` with all that is wrong with it, the question for an unaccepted CA last. Nothing
        is stored in any of these cases.
        """
        rules = self.profile(self.seen(name)).subject
        reply = Reply(parts, options, rules)
        try:
            after = self.amend(name, reply.admitted).account
        except RefusedError:
            reply.refuse_for_other(self.seen(name), self.others)
            raise
        self.settle(name)
        return reply.received(after)

    # tries

    def try_out(self, name: AccountName, number: int, *, reason: str = "") -> CanaryResult:
        """Try a generation at the partner, and store the result of the try, nothing else.

        Raise `RefusedError` for a superseded secret, which may count as a failed login, unless a person gives `reason`.
        """
        with self.settling(name):
            seen = self.seen(name)
            generation = seen.generation(number)
            if seen.current and _superseded(seen.parts_of(generation), seen.current.parts) and not reason:
                raise RefusedError(
                    f"generation {number} of {name} has an older password than the current one: partners lock accounts "
                    "after several rejected logins",
                    hint=f"broker rotation canary {name} tries the newest set; or --force --reason TEXT here",
                )
            return self._tried(seen, generation)

    def _tried(self, seen: Account, generation: Generation) -> CanaryResult:
        """Prepare a try of the set that `generation` makes in `seen`, reserve it, send it, and store the verdict.

        After a kill in between, the try stays on the account without an answer, and counts: repeated crashes must not
        lock the login unnoticed. Raise what `canary_sent` raises if no try is allowed.
        """
        name, number, parts, id_ = seen.name, generation.number, seen.parts_of(generation), secrets.token_hex(8)
        send = self.canary(seen, parts)
        reserved = self.amend(name, lambda newest, stamp: canary_sent(newest, number, parts, id_, stamp))
        attempt = next(t for t in reserved.account.tries if t.id == id_)
        answer = send()
        stamp = self._answered_at(attempt)
        amend(self.accounts, name, lambda newest: canary_answered(newest, attempt.number, answer, stamp))
        end = seen.certificate(parts.certificate).not_after
        return replace(answer, expired=end) if end <= attempt.at else answer

    def _answered_at(self, attempt: Try) -> Stamp:
        """Return a stamp; with the time of sending if the clock is wrong now, since a verdict is always stored."""
        try:
            return self.stamp()
        except RefusedError:
            return Stamp(attempt.at, self.actor)

    def reset_breaker(self, name: AccountName, reason: str) -> Account:
        """Allow tries again, for a person's `reason`."""
        return self.settled(name, lambda account, stamp: breaker_reset(account, reason, stamp)).account

    # moves

    def join(self, name: AccountName, one: int, other: int) -> Generation:
        """Return a candidate that changes what two candidates change, such as a certificate and a password.

        Joining the same two again returns the same candidate. Raise `RefusedError` if they change the same part.
        """
        after = self.settled(name, lambda account, stamp: joined(account, one, other, stamp)).account
        made = joined_form(after, after.generation(one), after.generation(other))
        assert made  # `joined` made it, or found it
        return made

    def promote(self, name: AccountName, number: int = 0, *, reason: str = "") -> Promotion:
        """Lay candidate `number` over the current set, try that, and make it current if the partner accepts it.

        0 is the newest that no roll-back made; if there is none, nothing changes. A number may also name the generation
        that the last roll-back displaced. The try comes before the move, so a kill leaves everything as it was, or
        finished. Raise `ConflictError` if another became current in between: it must be tried again. Raise
        `RefusedError` for a certificate that ends before the current one, unless a person gives a `reason`.
        """
        with self.settling(name):
            seen = self.seen(name)
            current = seen.current
            wanted = seen.generation(number) if number else generation_to_try(seen)
            if current and wanted.stage.deliverable and seen.brought_back(wanted) == current.parts.certified:
                return Promotion(name, current.number, changed=False)
            require_move(seen, wanted, Move.PROMOTE)
            _refuse_earlier_end(seen, wanted, reason)
            return self._made_current(seen, wanted, Move.PROMOTE, reason)

    def roll_back(self, name: AccountName, number: int = 0, *, untried_because: str = "") -> Promotion:
        """Bring certificate and client_ids of previous generation `number` back over the newest proven secrets and CAs.

        0 is the one that the current one displaced. If secrets or CAs changed since, this makes a new generation. It is
        tried first, unless a person gives a reason not to. The displaced generation becomes previous, and is promoted
        again only by its number. Repeating a roll-back changes nothing.
        """
        with self.settling(name):
            seen = self.seen(name)
            wanted, current = (seen.generation(number) if number else None), seen.current
            back = current and (wanted is None or seen.brought_back(wanted) == current.parts.certified)
            if current and (wanted is current or (back and any(map(seen.rolled_back, seen.generations)))):
                return Promotion(name, current.number, changed=False)
            return self._made_current(seen, wanted or displaced_generation(seen), Move.ROLL_BACK, untried_because)

    def _made_current(self, seen: Account, wanted: Generation, move: Move, reason: str) -> Promotion:
        name, displaced = seen.name, seen.current
        require_move(seen, wanted, move)
        if seen.compromise_of(wanted.parts.key) and not reason:
            raise RefusedError(
                f"others know the key of generation {wanted.number} of {name}",
                hint=f"broker csr new {name} makes a request with a new key",
            )
        seen = self.amend(name, lambda account, stamp: restored(account, wanted.number, stamp)).account
        target = rollback_target(seen, wanted)
        if moved(seen, target.number, move, self.stamp()) == seen:  # or raises
            return Promotion(name, target.number, changed=False)
        parts, done = seen.parts_of(target), Promotion(name, target.number)
        if move is Move.PROMOTE or not reason:
            answer = self._tried(seen, target)
            require_ok(name, target.number, answer)
            back = self._way_back(seen, parts) if move is Move.PROMOTE else None
            done = Promotion(name, target.number, answer.verdict, answer.detail, back)

        def finish(account: Account, stamp: Stamp) -> Account:
            if account.generation(target.number).stage is not Stage.CURRENT:
                _refuse_changed(account, target, parts)
                if move is Move.ROLL_BACK:
                    _refuse_displaced(account, displaced)
            return moved(account, target.number, move, stamp, reason)

        self.amend(name, finish)
        return done

    def _way_back(self, seen: Account, parts: Parts) -> Verdict | None:
        """Try the current set too, to know whether rolling back will work; never with a superseded secret.

        If no try is allowed now (another is on its way, the partner wants a pause), the promotion goes on without.
        """
        if seen.current is None or seen.current.parts.secrets != parts.secrets:
            return None
        try:
            return self._tried(seen, seen.current).verdict
        except (ConflictError, RefusedError, WaitingError):
            return None

    def reject(self, name: AccountName, number: int, reason: str) -> bool:
        """Withdraw a candidate; return whether anything changed."""
        return self.settled(name, lambda account, stamp: moved(account, number, Move.REJECT, stamp, reason)).changed

    def retire(self, name: AccountName, number: int, reason: str = "") -> bool:
        """Retire generation `number`, in one write that also dooms its secrets unless a living generation shares them.

        Return whether anything changed. Raise `WaitingError` while consumers hold it, unless a person gives a `reason`,
        and `ConflictError` if it was current since they were counted, since more may hold it now.
        """
        with self.settling(name):
            seen = self.seen(name)
            if moved(seen, number, Move.RETIRE, self.stamp()) == seen:  # or raises
                return False
            if seen.generation(number).stage is Stage.PREVIOUS:
                self.wait_for_services(seen.generation(number).since)
            copies = seen.copies_of(number)
            holding = sorted(self.stragglers(name, number) | copies)
            known = seen.compromise_of(seen.generation(number).parts.key)
            reason = reason or (f"others know its key: {known.reason}" if known else "")
            if holding and not reason:
                ways = [f"broker rotation returned {name} --held-by {shlex.quote(holder)}" for holder in sorted(copies)]
                revoke = f"broker lease revoke --account {name} --generation {number} --consumer NAME --reason TEXT"
                ways += [revoke] if len(holding) > len(copies) else []
                ways.append("--force --reason TEXT here")
                raise WaitingError(
                    f"generation {number} of {name} is still held by {', '.join(holding)}",
                    hint=f"wait until then; or, if the holder is gone: {', or '.join(ways)}",
                )

            def retired(newest: Account, stamp: Stamp) -> Account:
                generation = newest.generation(number)
                if generation.stage.living and generation.order != seen.generation(number).order:
                    raise ConflictError(
                        f"generation {number} of {name} became {generation.stage.value} at {generation.since:%F %TZ}, "
                        "after its holders were counted",
                        hint="the same command again counts them again",
                    )
                return moved(newest, number, Move.RETIRE, stamp, reason)

            return self.amend(name, retired).changed

    def returned(self, name: AccountName, holder: str, reason: str = "") -> Account:
        """Record that `holder` has no copy of a key outside any more; raise `UnknownNameError` if none was noted."""
        with self.settling(name):  # if none is noted, a killed command may have removed it
            return self.amend(name, lambda account, stamp: copy_gone(account, holder, reason, stamp)).account

    # the end

    def remove(self, name: AccountName, reason: str = "") -> bool:
        """Remove an account: every secret is destroyed, its evidence and its name are kept. Return whether it changed.

        Raise `WaitingError` while anything of it lives or is held, unless a person gives a `reason`.
        """
        with self.settling(name):
            seen = self.accounts.read(name).account
            if seen.removed:
                return False
            held = (self.stragglers(name, g.number) for g in seen.generations if g.stage.deliverable)
            left = [*_unfinished(seen), *(f"held by {holder}" for holder in sorted(frozenset().union(*held)))]
            if left and not reason:
                raise WaitingError(
                    f"{name} is still in use: {', '.join(left)}",
                    hint=f"broker account remove {name} --force --reason TEXT removes it nevertheless",
                )

            def gone(newest: Account, stamp: Stamp) -> Account:
                return removed(newest if reason else _unchanged(newest, seen), reason or "not in use", stamp)

            return self.amend(name, gone).changed


def _unfinished(account: Account) -> Iterator[str]:
    if account.open_request:
        yield f"signing request {account.open_request.number} is open"
    for generation in account.generations:
        if generation.stage.deliverable or generation.stage is Stage.CANDIDATE:
            yield f"generation {generation.number} is {generation.stage.value}"


def _unchanged(newest: Account, seen: Account) -> Account:
    """Return `newest`; raise `ConflictError` if a generation or a request came since `seen`."""
    if (newest.generations, newest.requests) != (seen.generations, seen.requests):
        raise ConflictError(f"{newest.name} changed meanwhile", hint="the same command again checks it again")
    return newest


def _superseded(parts: Parts, current: Parts) -> bool:
    return any(current.secrets.get(name, number) > number for name, number in parts.secrets.items())


def _refuse_earlier_end(account: Account, wanted: Generation, reason: str) -> None:
    if account.ends_earlier(wanted) and not reason:
        end = account.certificate(wanted.parts.certificate).not_after
        raise RefusedError(
            f"the certificate of generation {wanted.number} of {account.name} ends on {end:%F %TZ}, before the current",
            hint=f"ask the partner for a later one; to use it nevertheless: broker rotation promote {account.name} "
            f"--generation {wanted.number} --force --reason TEXT",
        )


def _refuse_changed(account: Account, target: Generation, parts: Parts) -> None:
    newest = account.generation(target.number)
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
