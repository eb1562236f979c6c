"""Properties of every plan: renewal starts before the end, and nothing lies in a freeze without saying why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from broker.model.account import Account
from broker.model.due import Renewal
from broker.model.generation import Snooze
from broker.model.maintenance import Freeze, Maintenance
from broker.model.plan import AccountPlan, Action, Step, account_plan
from broker.model.timeline import timeline
from broker.windows import maintenance
from tests.support.accounts import NOW, promoted, with_answer, with_current, with_open_request

HOURS = st.integers(1, 20 * 366 * 24).map(lambda hours: timedelta(hours=hours))
DAYS = st.integers(1, 400).map(lambda days: timedelta(days=days))
CRONS = st.sampled_from(["0 3 * * SUN", "30 2 * * *", "0 3 1 1 *", "0 3 29 2 *", "15 */2 * * 1-5"])
ZONES = st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"])
LENGTHS = st.sampled_from(["10m", "2h", "3d"])


@cache
def windows(cron: str, zone: str, length: str) -> Maintenance:
    return maintenance({"w": {"cron": cron, "timezone": zone, "duration": length}}, {})


@st.composite
def freezes(draw: st.DrawFn) -> Freeze:
    start = NOW + draw(HOURS)
    return Freeze("closed", start, start + draw(DAYS))


@st.composite
def calendars(draw: st.DrawFn) -> Maintenance:
    found = windows(draw(CRONS), draw(ZONES), draw(LENGTHS)).windows if draw(st.booleans()) else ()
    return Maintenance(found, tuple(draw(st.lists(freezes(), max_size=3))))


STATES = (
    with_current(),
    with_open_request(with_current()),
    with_answer(with_current()),
    promoted(with_answer(with_current()), 2),
)


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    account, lifetime = draw(st.sampled_from(STATES)), draw(HOURS)
    certificates = tuple(replace(c, not_after=c.not_before + lifetime) for c in account.certificates)
    snoozed = draw(st.none() | HOURS.map(lambda wait: Snooze(NOW, NOW + wait, "why")))
    renew_before = draw(st.sampled_from(["", "30d", "20%"]))
    return replace(account, certificates=certificates, snoozed=snoozed, renew_before=renew_before)


UNKNOWN = st.none() | DAYS
RENEWALS = st.builds(Renewal, safety=DAYS, share=st.floats(0.05, 0.95), overlap=UNKNOWN, lead_time=UNKNOWN)


def step(plan: AccountPlan, action: Action) -> Step | None:
    return next((one for one in plan.steps if one.action is action), None)


@given(accounts(), RENEWALS, calendars(), HOURS)
def test_every_plan_keeps_its_promises(
    account: Account, renewal: Renewal, calendar: Maintenance, passed: timedelta
) -> None:
    now = NOW + passed
    plan = account_plan(account, renewal, now, calendar)
    due = plan.due
    assert due
    renew, promote, reply = (step(plan, action) for action in (Action.RENEW, Action.PROMOTE, Action.REPLY))
    assert due.not_before <= due.at < due.not_after, "renewal starts within the lifetime"
    assert renew is None or renew.at == max(due.at, now), "and waits for no window"
    for one in plan.steps:
        assert one.at is None or one.at >= (now if one.action is not Action.REPLY else NOW)
        if one.at and one.action in (Action.PROMOTE, Action.RETIRE) and calendar.freeze_at(one.at):
            assert one.action is Action.PROMOTE, "a retirement waits for the end of a freeze"
            assert "in freeze" in one.because or "no window is waited for" in one.because
    if promote and promote.at:
        ready = max(reply.at, now) if reply and reply.at else now
        assert promote.at >= ready
        assert promote.at < due.not_after or ready >= due.not_after - timedelta(days=1) or ready == promote.at
        in_window = calendar.opening(promote.at, datetime.max.replace(tzinfo=UTC))
        open_then = in_window is not None and in_window.at == promote.at
        assert (
            open_then
            or "waited for" in promote.because
            or "in freeze" in promote.because
            or promote.because in plan.warnings
        )
    moments = timeline(account, plan, now)
    assert all(m.at <= now for m in moments if not m.planned)
    assert "why" not in " ".join(m.message for m in moments).split()
