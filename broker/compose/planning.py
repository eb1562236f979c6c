"""The plan of an account as it is shown: what is due when, by whom, and every term of the due date."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from broker.errors import InputError
from broker.model.account import Account
from broker.model.arrived import with_arrived
from broker.model.clock import Clock
from broker.model.due import Renewal, Term, account_due
from broker.model.duration import counted
from broker.model.generation import PromotionMode, RenewalMode, Snooze
from broker.model.life_cycle import Phase, Who
from broker.model.maintenance import Maintenance
from broker.model.names import AccountName
from broker.model.plan import AccountPlan, Step
from broker.model.role import Role
from broker.model.todo import forked_todo, unread_profile_todo
from broker.partners.planned import plan_of
from broker.partners.profile import Profile
from broker.windows import maintenance

if TYPE_CHECKING:  # a cycle: `Broker` offers this
    from broker.compose.graph import Broker

_LONG_WAIT: Final = Renewal().safety  # a longer time without a window is warned of
_AHEAD: Final = timedelta(days=2 * 366)


class PlanReport(Struct, frozen=True):
    """What comes next for an account, and why. `automatic`: the scheduler takes the step by itself."""

    account: AccountName
    phase: Phase
    who: Who
    automatic: bool
    message: str
    hint: str
    renewal: RenewalMode
    promotion: PromotionMode
    not_after: datetime | None
    due: datetime | None
    due_because: str | None
    terms: tuple[Term, ...]
    snoozed: Snooze | None
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]


class Planning:
    """Plans of accounts, by the windows and freezes of this host."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    @cached_property
    def maintenance(self) -> Maintenance:
        """The windows and freezes; raise `InputError`."""
        return maintenance(self._broker.config.windows, self._broker.config.freezes)

    def reports(self, names: Sequence[AccountName], clock: Clock) -> list[PlanReport]:
        """Return the plans of the accounts `names`, or of all: what is due when, and why."""
        return [_report(account, plan) for account, plan, _ in self.found(names, clock)]

    def need(self, name: AccountName, renew_before: str, clock: Clock) -> Need:
        """Return whether the renewal of an account must start."""
        account = self._broker.account(name).kept()
        renewal = self._broker.profile(account.profile, Role.AUDITOR).renewal
        return _need(account, renewal, renew_before, clock())

    def found(self, names: Sequence[AccountName], clock: Clock) -> Iterator[tuple[Account, AccountPlan, datetime]]:
        """Yield accounts with their plans and the time, read as the auditor."""
        broker = self._broker
        windows = self.maintenance  # a mistake in it is reported once: it is no account's
        accounts = [broker.account(name).kept() for name in dict.fromkeys(names)]
        accounts = accounts or [account for account in broker.all_accounts() if not account.removed]
        now = clock()  # after the accounts: a missing login or account is reported first
        read = cache(partial(broker.profile, role=Role.AUDITOR))
        for account in accounts:
            plan = _plan(account, read, now, windows, forked=broker.forked(account))
            yield account, with_arrived(plan, account, broker.arriving.proposals(account.name)), now

    def waits(self, now: datetime) -> str:
        """Return a warning if nothing may be promoted by itself for a long time within two years; else ""."""
        start, end = self.maintenance.longest_wait(now, now + _AHEAD)
        if end - start <= _LONG_WAIT:
            return ""
        return (
            f"no window opens for {counted((end - start).days, 'day')}, from {start:%F %TZ} to {end:%F %TZ}: if a "
            "certificate ends in that time, the scheduler promotes its successor without one"
        )


class Need(Struct, frozen=True):
    """Whether the renewal of an account must start. `due` is None if it has no certificate."""

    account: AccountName
    needed: bool
    due: datetime | None
    message: str
    hint: str = ""


def _plan(
    account: Account, profile: Callable[[str], Profile], now: datetime, windows: Maintenance, *, forked: bool
) -> AccountPlan:
    """Return the plan of `account`. An unreadable profile is reported in it."""
    try:
        return plan_of(account, profile(account.profile), now, windows, forked=forked)
    except InputError as error:
        todo = forked_todo(account) if forked else unread_profile_todo(error.message, error.hint)
        return AccountPlan(account.name, todo.phase, todo.who, False, todo.message, todo.hint, None)


def _need(account: Account, renewal: Renewal, renew_before: str, now: datetime) -> Need:
    """Return whether a person or program must start the renewal of `account`; not if one goes on."""
    due = account_due(account, renewal, renew_before)
    if due is None:
        message, hint = "it has no certificate, so there is nothing to renew", f"broker rotation status {account.name}"
        return Need(account.name, False, None, message, hint)
    going_on = bool(account.open_request or account.automatic_candidate)
    needed, at = due.at <= now and not going_on, f"{due.at:%F %TZ} ({due.because})"
    message = f"renewal is due since {at}" if due.at <= now else f"renewal is due on {at}"
    return Need(account.name, needed, due.at, f"{message}, and goes on" if due.at <= now and going_on else message)


def _report(account: Account, plan: AccountPlan) -> PlanReport:
    """Return `plan` as it is shown."""
    due = plan.due
    return PlanReport(
        account=account.name,
        phase=plan.phase,
        who=plan.who,
        automatic=plan.automatic,
        message=plan.message,
        hint=plan.hint,
        renewal=account.renewal,
        promotion=account.promotion,
        not_after=due.not_after if due else None,
        due=due.at if due else None,
        due_because=due.because if due else None,
        terms=tuple(due.terms()) if due else (),
        snoozed=account.snoozed,
        steps=plan.steps,
        warnings=plan.warnings,
    )
