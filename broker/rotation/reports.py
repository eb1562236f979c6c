"""Results of the rotation's use-cases, as the command line prints them and other callers read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from broker.model.account import Account
from broker.model.generation import Breaker, Generation, KeyRef, Try
from broker.model.names import AccountName
from broker.model.obstacle import Obstacle, obstacles, paused_until
from broker.model.stage import Stage
from broker.partners.verdict import Verdict
from broker.rotation.choosing import Promotion


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """The partner's answer to a generation; `verdict` is None if the partner was not asked."""

    account: AccountName
    generation: int
    verdict: Verdict | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PromotionReport(CanaryReport):
    """The result of a promotion or roll-back. `way_back` is the partner's answer to the displaced generation."""

    way_back: Verdict | None = None
    changed: bool = True


def promotion_report(promotion: Promotion) -> PromotionReport:
    """Return the report of a promotion or roll-back."""
    answer, way_back = promotion.answer, promotion.way_back
    return PromotionReport(
        promotion.account.name,
        promotion.number,
        answer.verdict if answer else None,
        answer.detail if answer else "",
        way_back.verdict if way_back else None,
        promotion.changed,
    )


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """A generation, and the consumers that hold it."""

    number: int
    stage: Stage
    since: datetime
    rolled_back: bool
    changes: tuple[str, ...]
    key: KeyRef
    password: int
    not_after: datetime
    held_by: tuple[str, ...]

    @property
    def label(self) -> str:
        """The stage, for people."""
        return f"{self.stage.value} (rolled back)" if self.rolled_back else self.stage.value


@dataclass(frozen=True, slots=True)
class RotationStatus:
    """The generations of an account, its last canaries, and what prevents the next one."""

    account: AccountName
    current: int | None
    generations: tuple[GenerationReport, ...]
    canaries: tuple[Try, ...]
    breaker: Breaker | None
    not_before: datetime | None
    obstacles: tuple[Obstacle, ...]


def rotation_status(account: Account, holders: Callable[[int], frozenset[str]], now: datetime) -> RotationStatus:
    """Return the status of `account`; `holders` returns the consumers that hold a generation."""
    return RotationStatus(
        account=account.name,
        current=account.current.number if account.current else None,
        generations=tuple(_report(account, g, holders) for g in account.generations),
        canaries=account.tries,
        breaker=account.breaker,
        not_before=paused_until(account, now),
        obstacles=tuple(obstacles(account, now)),
    )


def _report(account: Account, generation: Generation, holders: Callable[[int], frozenset[str]]) -> GenerationReport:
    parts, stage = account.parts_of(generation), generation.stage
    return GenerationReport(
        number=generation.number,
        stage=stage,
        since=generation.since,
        rolled_back=account.rolled_back(generation),
        changes=tuple(sorted(generation.parts.names)) if stage is Stage.CANDIDATE else (),
        key=parts.key,
        password=parts.password,
        not_after=account.certificate(parts.certificate).not_after,
        held_by=tuple(sorted(holders(generation.number) | account.copies_of(generation.number)))
        if stage.deliverable
        else (),
    )
