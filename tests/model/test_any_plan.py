"""Properties of every plan: renewal starts before the end, and nothing lies in a freeze without saying why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from hypothesis import example, given
from hypothesis import strategies as st

from broker.copies import replace
from broker.model.account import Account
from broker.model.changes.requesting import submitted
from broker.model.due import DueDate, Renewal, Rule
from broker.model.generation import Snooze, Submission
from broker.model.maintenance import Freeze, Maintenance
from broker.model.plan import AccountPlan, Action, Step, account_plan
from broker.model.timeline import timeline
from broker.windows import maintenance
from tests.support.accounts import BY, NOW, promoted, with_answer, with_current, with_open_request

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
    submitted(with_open_request(with_current()), 2, Submission(NOW, "eml", "desk@partner.test"), by=BY),
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


def assert_due(due: DueDate) -> None:
    """Renewal starts within the lifetime, by the earliest term, unless a person set or put off the date."""
    assert due.not_before <= due.at < due.not_after, "renewal starts within the lifetime"
    terms = {term.name: term.at for term in due.terms()}
    assert [term.at for term in due.terms() if term.decides] == [due.at], "the term that decides is the date"
    margin, share = terms[Rule.MARGIN.value], terms[Rule.SHARE.value]
    assert margin == max(due.not_after - due.renewal.safety - due.lead.time, due.not_before)
    assert share
    before = terms.get(Rule.SET.value) or min(margin, share)
    assert due.at == before or (due.rule is Rule.SNOOZE and due.at > before), "a snooze only puts it off"


def step(plan: AccountPlan, action: Action) -> Step | None:
    return next((one for one in plan.steps if one.action is action), None)


LONG = Maintenance((), (Freeze("closed", NOW, NOW + timedelta(days=900)),))


@example(with_answer(with_current()), Renewal(), LONG, 0.9993)  # in a freeze, and on the last day
@given(accounts(), RENEWALS, calendars(), st.floats(0, 1.5))
def test_every_plan_keeps_its_promises(
    account: Account, renewal: Renewal, calendar: Maintenance, passed: float
) -> None:
    """`passed` is a share of the lifetime: most plans are made while the certificate is good."""
    assert account.current
    certificate = account.certificate(account.current.parts.certificate)
    now = NOW + (certificate.not_after - NOW) * passed
    plan = account_plan(account, renewal, now, calendar)
    due = plan.due
    assert due
    renew, promote, reply = (step(plan, action) for action in (Action.RENEW, Action.PROMOTE, Action.REPLY))
    assert_due(due)
    asked = account.open_request.submissions if account.open_request else ()
    begun = asked[0].at if asked else renew.at if renew else now
    assert reply is None or begun is None or reply.at == begun + due.lead.time, "an answer takes the lead time"
    late = due.rule is Rule.SNOOZE and due.not_after - due.at < due.needed
    assert late == any("snoozed" in warning for warning in plan.warnings) or bool(asked or not renew)
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
        assert ("no window is waited for" in promote.because) == (ready >= due.not_after)
        alone = any(words in promote.because for words in ("in freeze", "last day", "none is waited for"))
        warned = f"promotion: {promote.because}" in plan.warnings
        assert warned == alone, "a promotion outside of windows is warned of"
        in_window = calendar.opening(promote.at, datetime.max.replace(tzinfo=UTC))
        open_then = in_window is not None and in_window.at == promote.at
        assert open_then or "waited for" in promote.because or "in freeze" in promote.because or warned
    moments = timeline(account, plan, now)
    assert all(m.at <= now for m in moments if not m.planned)
    assert "why" not in " ".join(m.message for m in moments).split()
