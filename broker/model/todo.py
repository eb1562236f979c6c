"""The next step for an account and who does it, and the reasons not to send a canary now."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import BrokerError, ConflictError, RefusedError, WaitingError
from broker.model.account import Account
from broker.model.due import Renewal
from broker.model.duration import age_text, duration_text
from broker.model.generation import Generation, RenewalMode, SigningRequest, Try
from broker.model.life_cycle import Phase, State, Who
from broker.model.situation import Situation
from broker.model.stage import Stage
from broker.model.verdict import Verdict

LONGEST_PAUSE: Final = timedelta(days=1)  # the longest quota is a sliding day
TRY_TIMEOUT: Final = timedelta(minutes=2)  # a canary without an answer by then was killed
_APART: Final = timedelta(minutes=10)  # between two machines, each at most five minutes from Vault
_VERDICTS: Final = {verdict.value: verdict for verdict in Verdict}  # not that of a try that a person reset
DEFAULT_OVERLAP: Final = timedelta(days=7)  # if the profile does not say how long the old certificate works
UNANSWERED: Final = 3  # canaries in a row without an answer: then a person decides


class Obstacle(Struct, frozen=True):
    """A reason not to ask the partner. `until` is None if only a person ends it."""

    code: str
    message: str
    hint: str  # the command that ends it, and the role that may run it
    error: type[BrokerError]  # for a command that would ask the partner
    until: datetime | None = None


def obstacles(account: Account, now: datetime) -> Iterator[Obstacle]:
    """Yield the reasons not to send a canary now, the worst first."""
    name, last = account.name, account.tries[-1] if account.tries else None
    forced = f"broker rotation canary {name} --force --reason TEXT (role rotator)"
    if account.breaker:
        yield Obstacle(
            "breaker",
            f"the partner rejected the login of {name} on {account.breaker.at:%F %TZ}, and partners lock accounts "
            "after several",
            f"broker password set {name} (role operator); if the partner unlocked it, {forced}",
            RefusedError,
        )
    pause = paused_until(account, now)
    if pause:
        yield Obstacle(
            "pause",
            f"the partner asked us to back off for {name} until {pause:%F %TZ}",
            f"wait until then; if the partner allows it earlier, {forced}",
            WaitingError,
            pause,
        )
    if last and not last.verdict and abs(now - last.at) < TRY_TIMEOUT:  # either way: two machines' clocks differ
        yield Obstacle(
            "on-its-way",
            f"another canary of {name} is on its way since {last.at:%TZ}",
            f"wait until {last.at + TRY_TIMEOUT:%TZ}, then run the same command again: it may have been killed",
            ConflictError,
            last.at + TRY_TIMEOUT,
        )
    elif len(account.tries) >= UNANSWERED and not any(t.verdict for t in account.tries[-UNANSWERED:]):
        yield Obstacle(
            "unanswered",
            f"the last {UNANSWERED} canaries of {name} were killed before their answer was stored, "
            "and may have counted as failed logins",
            f"ask the partner, then {forced}",
            RefusedError,
        )


def paused_until(account: Account, now: datetime) -> datetime | None:
    """Return when the partner's pause ends; None if there is none.

    An end later than the longest pause from now was not stored by a broker with a right clock: it counts as past.
    """
    until = account.not_before
    return until if until and now < until <= now + LONGEST_PAUSE + _APART else None


class Todo(Struct, frozen=True, gc=False):
    """A step: the phase that it belongs to, why, by which command, and who does it.

    `since` is when the phase began; None if only the current generation says so.
    """

    phase: Phase
    message: str
    hint: str = ""
    since: datetime | None = None
    by: Who | None = None  # if it is not who acts in the phase

    @property
    def who(self) -> Who:
        """The party that acts."""
        return self.by or self.phase.row.who

    @property
    def state(self) -> State:
        """The state of the account."""
        return self.phase.state


_NOTHING: Final = Todo(Phase.NOT_DUE, "nothing")


def forked_todo(account: Account) -> Todo:
    """Return the step that comes before all others if another entry has taken the place of the account's evidence."""
    message = "its evidence has an entry that is not the account's, and takes no more"
    return Todo(Phase.STOPPED, message, f"broker evidence verify {account.name}", _stopped_at(account))


def _stopped_at(account: Account) -> datetime | None:
    if account.breaker:
        return account.breaker.at
    return account.tries[-1].at if account.tries else None


def unread_profile_todo(message: str, hint: str) -> Todo:
    """Return the step if the partner's profile cannot be read, which all other steps require."""
    return Todo(Phase.STOPPED, f"{message}; {hint}")


def next_todo(seen: Situation) -> Todo:
    """Return the most urgent step.

    If the current certificate is over, or the account is suspended, the step says so first.
    """
    account, now, due, step = seen.account, seen.now, seen.due, _step(seen)
    known, halted = account.compromise if seen.compromised else None, " and suspended" if account.suspended else ""
    if known:
        message = f"COMPROMISED on {known.at:%F %TZ} ({known.reason}){halted}; {step.message}"
        return Todo(Phase.COMPROMISED, message, step.hint, known.at, step.who)
    if due and due.not_after <= now:
        step = (None if seen.candidate or account.breaker else _to_return(account, now)) or step
        return Todo(Phase.EXPIRED, f"EXPIRED on {due.end}{halted}; {step.message}", step.hint, due.not_after, step.who)
    if account.suspended:
        if step.state is State.STOPPED:
            return replace(step, message=f"suspended; {step.message}")
        message = f"suspended since {account.suspended.at:%F %TZ} ({account.suspended.reason}): nothing is issued"
        return Todo(Phase.SUSPENDED, message, f"broker account resume {account.name}", account.suspended.at)
    return step


def _step(seen: Situation) -> Todo:
    account, candidate = seen.account, seen.candidate
    fault = _to_fix(account, candidate or seen.current)
    if fault:
        return fault
    if candidate:
        return _to_promote(account, candidate, seen.now)
    if seen.refused:
        return _to_correct(account, seen.refused)
    if seen.request:
        return _to_wait(seen, seen.request)
    if seen.compromised:
        return _to_replace(seen, seen.compromised)
    return _to_begin(seen) or _to_tidy(seen)


def last_answer(account: Account, generation: Generation) -> tuple[Try, Verdict] | None:
    """Return the last canary of the set that `generation` makes now, and the partner's answer; None without one."""
    for made in reversed(account.tries):
        verdict = _VERDICTS.get(made.verdict)
        if verdict and made.generation == generation.number and made.parts == account.parts_of(generation):
            return made, verdict
    return None


def overlap_end(account: Account, generation: Generation, renewal: Renewal) -> datetime:
    """Return when the overlap of a previous generation is over: it is kept as the way back, while it is valid.

    One with a key that others know is no way back. One that outlives the current one is kept until its own end.
    """
    if account.compromise_of(generation.parts.key):
        return generation.since
    end = account.certificate(generation.parts.certificate).not_after
    current = account.current
    if current and account.certificate(current.parts.certificate).not_after < end:
        return end
    return max(generation.since, min(generation.since + (renewal.overlap or DEFAULT_OVERLAP), end))


def _to_fix(account: Account, next_set: Generation | None) -> Todo | None:
    name = account.name
    if account.breaker:
        message = f"the partner rejected the login on {account.breaker.at:%F %TZ}"
        return Todo(Phase.STOPPED, message, f"broker password set {name}", account.breaker.at)
    if not account.secrets:
        return Todo(Phase.NEW, "it has no password", f"broker password set {name}")
    if not account.applications:
        return Todo(Phase.NEW, "it has no application", f"broker app add {name}/APPLICATION")
    return _refused(account, next_set) if next_set else None


def _refused(account: Account, generation: Generation) -> Todo | None:
    """Return the remedy if the partner's last answer refused this very set."""
    made, verdict = last_answer(account, generation) or (None, Verdict.OK)
    if made is None or not verdict.refuses:
        return None
    changed = generation.parts.client_ids if generation.stage is Stage.CANDIDATE else ()
    rejected = [*changed, *(a.name for a in account.applications if a.rejected_at), "APPLICATION"][0]
    message = f"on {made.at:%F %TZ} the partner's answer to generation {generation.number} was {verdict.value}"
    changes = generation.stage is Stage.CANDIDATE or verdict is Verdict.CLIENT_REJECTED  # its remedy adds one
    verb = "promote" if changes else "canary"
    hint = f"{verdict.remedy(account.name, rejected)}; then: broker rotation {verb} {account.name}"
    if account.current and generation.stage is Stage.CANDIDATE:
        withdrawn = f"broker rotation reject {account.name} --generation {generation.number} --reason TEXT"
        hint = f"{hint}; or, to do without it: {withdrawn}"
    return Todo(Phase.STOPPED, f"{message}: {verdict.message}", hint, account.tries[-1].at)


def _to_promote(account: Account, candidate: Generation, now: datetime) -> Todo:
    name, message, since = account.name, f"generation {candidate.number} is ready to be tried", candidate.since
    obstacle = next(obstacles(account, now), None)
    if obstacle:
        phase, since = (Phase.PAUSED, since) if obstacle.until else (Phase.STOPPED, account.tries[-1].at)
        return Todo(phase, f"{message}; {obstacle.message}; {obstacle.hint}", since=since)
    if account.ends_earlier(candidate):
        message = f"the certificate of generation {candidate.number} ends before the current one"
        hint = f"broker rotation reject {name} --generation {candidate.number} --reason TEXT; or, to use it: "
        return Todo(Phase.CANDIDATE, message, f"{hint}broker rotation promote {name} --force --reason TEXT", since)
    made, verdict = last_answer(account, candidate) or (None, None)
    tried = f" again (on {made.at:%F %TZ} the answer was {made.verdict})" if made and verdict else ""
    if made and verdict is Verdict.OK:
        message, tried = f"generation {candidate.number} is ready to be promoted", f" (accepted on {made.at:%F %TZ})"
    return Todo(Phase.CANDIDATE, message + tried, f"broker rotation promote {name}", since)


def _to_correct(account: Account, refused: SigningRequest) -> Todo:
    why = refused.closed_because and f": {refused.closed_because}"
    message = f"the partner refused signing request {refused.number} on {refused.closed_at:%F}{why}; correct it"
    return Todo(Phase.REFUSED, message, f"broker csr new {account.name}", refused.closed_at)


def _to_wait(seen: Situation, request: SigningRequest) -> Todo:
    """Return the step of a request that is open: to send it, to wait, or to ask the partner's people."""
    account, name = seen.account, seen.account.name
    if not request.submissions:
        message = f"signing request {request.number} was never sent"
        return Todo(Phase.DRAFTED, message, f"broker csr submit {name}", request.drafted_at)
    if must_tell(account, request):
        message = f"signing request {request.number} was sent before; ask the partner to revoke the old certificate too"
        return Todo(Phase.DRAFTED, message, f"broker csr submit {name}", request.drafted_at)
    lead, sent = seen.lead.time, request.submissions[0].at
    message = f"signing request {request.number} was sent {age_text(seen.now - sent)} ago"
    if seen.now - sent <= lead:
        return Todo(Phase.SENT, message, f"broker cert import {name} FILE", sent)
    late = f"stuck: longer than its lead time of {duration_text(lead)}; ask the partner, or send the same mail again"
    return Todo(Phase.OVERDUE, f"{message}, {late}", f"broker csr submit {name}", sent + lead)


def must_tell(account: Account, request: SigningRequest) -> bool:
    """Return whether no mail since then asked the partner to revoke a certificate whose key others know."""
    known = account.compromise
    return known is not None and all(sent.at < known.at for sent in request.submissions)


def _to_return(account: Account, now: datetime) -> Todo | None:
    """Return the step if an older set outlives the current one, which is over."""
    for generation in reversed(account.generations):
        if generation.stage is not Stage.PREVIOUS or account.compromise_of(generation.parts.key):
            continue
        end = account.certificate(generation.parts.certificate).not_after
        if end > now:
            verb = "promote" if account.rolled_back(generation) else "rollback"
            hint = f"broker rotation {verb} {account.name} --generation {generation.number}"
            return Todo(Phase.EXPIRED, f"generation {generation.number} is valid until {end:%F %TZ}", hint)
    return None


def _to_replace(seen: Situation, victim: Generation) -> Todo:
    """Return the step after others got to know a key, until the partner is known to have revoked its certificate."""
    name = seen.account.name
    if seen.current and seen.current.parts.key == victim.parts.key:
        return Todo(Phase.COMPROMISED, "its key must be replaced", f"broker csr new {name}")
    message = f"ask the partner whether it revoked the certificate of generation {victim.number}"
    return Todo(Phase.COMPROMISED, message, f"broker rotation revoked {name} --generation {victim.number}")


def _to_begin(seen: Situation) -> Todo | None:
    account, due, rotation = seen.account, seen.due, seen.account.password_rotation
    name = account.name
    if due is None:
        return Todo(Phase.NEW, "it has no certificate", f"broker csr new {name}")
    if due.at <= seen.now:
        message = f"renewal is due ({due.because})"
        if account.renewal is not RenewalMode.DISABLED:
            return Todo(Phase.DUE, message, f"broker csr new {name}", due.at)
        hint = f"broker csr new {name}; broker account set {name} --renewal auto"
        return Todo(Phase.DISABLED, f"{message}, and disabled for the account", hint, due.at)
    if rotation:
        message = f"its password is being changed; next: {rotation.next.value} ({rotation.next.meaning})"
        return Todo(Phase.PASSWORD, message, f"broker password rotate {name}")
    return None


def _to_tidy(seen: Situation) -> Todo:
    account, name = seen.account, seen.account.name
    for application in account.applications:
        if not application.client_id:
            message = f"application {application.name} has no client_id"
            return Todo(Phase.NEW, message, f"broker app set {name}/{application.name} --client-id ID")
    if seen.kept:
        end, number = min((overlap_end(account, g, seen.renewal), g.number) for g in seen.kept)
        if end <= seen.now:
            hint = f"broker rotation retire {name} --generation {number}"
            return Todo(Phase.RETIRING, f"generation {number} can be retired once no consumer holds it", hint, end)
        return Todo(Phase.OVERLAP, f"generation {number} is kept until {end:%F %TZ} as the way back")
    return _NOTHING
