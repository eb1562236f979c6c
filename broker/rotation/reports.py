"""Results of the rotation's use-cases, and the errors for a set that the partner did not accept."""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from broker.errors import PartnerUnavailableError, RefusedError
from broker.model.account import Account
from broker.model.generation import Breaker, Generation, Halt, KeyRef, Try
from broker.model.life_cycle import Phase, Who
from broker.model.names import AccountName
from broker.model.plan import AccountPlan, Step
from broker.model.stage import Stage
from broker.model.timeline import Moment, timeline
from broker.model.todo import Obstacle, last_answer, obstacles, paused_until
from broker.model.verdict import CanaryResult, Verdict


class CanaryReport(Struct, frozen=True):
    """The partner's answer to a generation; `verdict` is None if the partner was not asked."""

    account: AccountName
    generation: int
    verdict: Verdict | None = None
    detail: str = ""


class Promotion(CanaryReport, frozen=True):
    """The result of a promotion or roll-back. `changed` is false if the generation was current already.

    `way_back` is the partner's answer to the displaced generation, if that was tried too.
    """

    way_back: Verdict | None = None
    changed: bool = True


class GenerationReport(Struct, frozen=True):
    """A generation, and the consumers that hold it."""

    number: int
    stage: Stage
    since: datetime
    rolled_back: bool
    compromised: Halt | None  # since when others know its key
    changes: tuple[str, ...]
    key: KeyRef
    password: int
    not_after: datetime
    held_by: tuple[str, ...]
    copies: tuple[str, ...]  # those of `held_by` outside, by hand
    verdict: Verdict | None  # of the last canary of this very set

    @property
    def label(self) -> str:
        """The stage, for people."""
        remarks = (("rolled back", self.rolled_back), ("compromised", self.compromised is not None))
        said = ", ".join(remark for remark, so in remarks if so)
        return f"{self.stage.value} ({said})" if said else self.stage.value


class SchedulerStatus(Struct, frozen=True):
    """The scheduler that sweeps, or swept last. It loses its lock at `until`; None if it gave the lock back."""

    holder: str
    since: datetime
    until: datetime | None
    last_end: datetime | None  # of a sweep, of any scheduler


class RotationStatus(Struct, frozen=True):
    """The generations of an account, its last canaries, and what prevents the next one."""

    account: AccountName
    current: int | None
    generations: tuple[GenerationReport, ...]
    canaries: tuple[Try, ...]
    breaker: Breaker | None
    not_before: datetime | None
    obstacles: tuple[Obstacle, ...]
    rejected: tuple[str, ...]  # applications whose client_id the partner rejected
    suspended: Halt | None
    phase: Phase
    since: datetime | None  # when the phase began
    who: Who
    automatic: bool  # the scheduler takes the next step
    message: str
    hint: str
    steps: tuple[Step, ...]
    timeline: tuple[Moment, ...]
    scheduler: SchedulerStatus | None = None  # None if none has run, or this role may not see it


def rotation_status(
    account: Account, plan: AccountPlan, holders: Callable[[int], frozenset[str]], now: datetime
) -> RotationStatus:
    """Return the status of `account`; `holders` returns the consumers that hold a generation."""
    return RotationStatus(
        account=account.name,
        current=account.current.number if account.current else None,
        generations=generation_reports(account, holders),
        canaries=account.tries,
        breaker=account.breaker,
        not_before=paused_until(account, now),
        obstacles=tuple(obstacles(account, now)),
        rejected=tuple(a.name for a in account.applications if a.rejected_at),
        suspended=account.suspended,
        phase=plan.phase,
        since=plan.since,
        who=plan.who,
        automatic=plan.automatic,
        message=plan.message,
        hint=plan.hint,
        steps=plan.steps,
        timeline=timeline(account, plan, now),
    )


def generation_reports(account: Account, holders: Callable[[int], frozenset[str]]) -> tuple[GenerationReport, ...]:
    """Return the generations of `account`; `holders` returns the consumers that hold one."""
    return tuple(_report(account, g, holders) for g in account.generations)


def _report(account: Account, generation: Generation, holders: Callable[[int], frozenset[str]]) -> GenerationReport:
    parts, stage, answer = account.parts_of(generation), generation.stage, last_answer(account, generation)
    return GenerationReport(
        number=generation.number,
        stage=stage,
        since=generation.since,
        rolled_back=account.rolled_back(generation),
        compromised=account.compromise_of(parts.key),
        changes=tuple(sorted(generation.parts.names)) if stage is Stage.CANDIDATE else (),
        key=parts.key,
        password=parts.password,
        not_after=account.certificate(parts.certificate).not_after,
        held_by=tuple(sorted(holders(generation.number) | account.copies_of(generation.number)))
        if stage.deliverable
        else (),
        copies=tuple(sorted(account.copies_of(generation.number))) if stage.deliverable else (),
        verdict=answer[1] if answer else None,
    )


class CanaryRefusedError(RefusedError):
    """The partner did not accept the set."""

    verdict: Verdict


class CanaryUnansweredError(PartnerUnavailableError):
    """The partner gave no answer about the set."""

    verdict: Verdict


def require_ok(name: AccountName, number: int, answer: CanaryResult) -> None:
    """Raise `CanaryUnansweredError` or `CanaryRefusedError` unless the partner accepted generation `number`."""
    verdict, detail = answer.verdict, f" ({answer.detail})" if answer.detail else ""
    if verdict is Verdict.OK:
        return
    message = f"the partner's answer to generation {number} of {name} is {verdict.value}{detail}"
    if not verdict.refuses:
        hint = f"nothing was changed; {verdict.hint or 'try again later'}"
        error: CanaryUnansweredError | CanaryRefusedError = CanaryUnansweredError(message, hint=hint)
    else:
        error = CanaryRefusedError(message, hint=_hint(name, number, answer))
    error.verdict = verdict
    raise error


def _hint(name: AccountName, number: int, answer: CanaryResult) -> str:
    if answer.expired and answer.verdict in (Verdict.CERTIFICATE_REJECTED, Verdict.HANDSHAKE):
        return f"the certificate of generation {number} expired on {answer.expired:%F %TZ}: broker csr new {name}"
    hint = answer.verdict.remedy(name, answer.application.name if answer.application else "APPLICATION")
    if answer.verdict in (Verdict.LOGIN_REJECTED, Verdict.WRONG_CA):  # their hints are enough
        return hint
    return f"{hint}; broker explain {name} --generation {number} prints the redacted request for the partner's support"
