"""The sweep: what is done in which order, and what is left to people."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta

import pytest

from broker.errors import BrokerError, PartnerUnavailableError, RefusedError, VaultUnavailableError
from broker.model.generation import PromotionMode, RenewalMode, Submission
from broker.model.life_cycle import Phase
from broker.model.maintenance import Maintenance, Window
from broker.model.rotation_record import LONGEST, SHORTEST
from broker.model.secret import Secret
from broker.model.stage import Stage
from broker.model.verdict import Verdict
from broker.scheduling.ports import LostLockError
from broker.scheduling.report import Result
from tests.rotation.life_cycle import Commands
from tests.scheduling.simulated import Scheduled, begun, done
from tests.support.accounts import MZP

AUTO = PromotionMode.AUTO
DAY = timedelta(days=1)
DUE = 300  # days: two thirds of a year and more


def candidate(promotion: PromotionMode = AUTO) -> Scheduled:
    """Return an account whose second certificate has arrived, by mail."""
    made = begun(promotion=promotion)
    made.sweep(days=DUE)
    made.answer(2)
    return made


def stages(made: Scheduled) -> list[str]:
    return [generation.stage.value for generation in made.sim.account.generations]


def test_nothing_is_done_before_it_is_due() -> None:
    made = begun()
    made.sweep()  # it was never proven since its promotion
    assert not made.sweep(days=1).deeds
    assert [plan.phase for plan in made.told] == [Phase.NOT_DUE]


def test_due_account_gets_a_request_and_sends() -> None:
    made = begun()
    assert done(made.sweep(days=DUE))[:2] == ["draft", "submit"]
    assert made.sent == [2]
    assert made.sim.account.request(2).submissions[0].message_id
    assert not done(made.sweep(hours=1))


def test_a_machine_needs_no_people_at_all() -> None:
    """From due to the old key's end: the requests are answered immediately."""
    made = begun(promotion=AUTO)
    made.answers = True
    assert done(made.sweep(days=DUE)) == ["draft", "submit", "promote"]
    assert stages(made) == ["previous", "current"]
    assert not done(made.sweep(days=6))
    old = made.sim.account.generation(1).parts.key
    assert done(made.sweep(days=1))[0] == "retire"
    assert stages(made) == ["retired", "current"]
    assert old not in made.sim.living_keys()
    assert [event for event in made.events if "prove" not in event] == [
        "draft-done", "submit-done", "promote-done", "retire-done",
    ]  # fmt: skip


def test_lost_answer_of_a_machine_is_asked_again() -> None:
    made = begun(promotion=AUTO)
    made.answers = True
    made.sim.now += timedelta(days=DUE)
    commands = Commands(made.sim)
    commands.draft()
    commands.rotation.submit(MZP, 2, Submission(made.sim.now, "vault-pki"))
    commands.settle()
    assert done(made.sweep()) == ["submit", "promote"]


@pytest.mark.parametrize("renewal", [RenewalMode.MANUAL, RenewalMode.DISABLED])
def test_renewal_by_people_is_left_to_them(renewal: RenewalMode) -> None:
    made = begun(renewal=renewal)
    assert not made.sweep(days=DUE).deeds


def test_a_promotion_waits_for_its_window() -> None:
    """The set is tried before, so that people hear of a fault in time."""
    made = candidate()
    opens = made.sim.now + timedelta(hours=3)
    made.maintenance = Maintenance((Window("nights", lambda after: iter([opens] if opens > after else []), DAY),))
    assert done(made.sweep()) == ["canary"]
    assert not done(made.sweep(hours=2))
    assert done(made.sweep(hours=1)) == ["promote"]


def test_promotion_by_people_gets_one_canary() -> None:
    made = candidate(PromotionMode.MANUAL)
    assert done(made.sweep()) == ["canary"]
    assert not done(made.sweep(hours=1))
    assert stages(made) == ["current", "candidate"]
    assert made.told[0].phase is Phase.CANDIDATE  # a person must act


@pytest.mark.parametrize("verdict", [Verdict.HANDSHAKE, Verdict.CERTIFICATE_REJECTED, Verdict.PARTNER_DOWN])
def test_what_passes_is_tried_again_later(verdict: Verdict) -> None:
    """A new certificate may take hours to be known; a partner may be down."""
    made = candidate()
    made.sim.verdict = verdict
    assert done(made.sweep(), Result.FAILED) == ["promote"]
    assert not made.sweep(seconds=299).deeds
    assert done(made.sweep(seconds=1), Result.FAILED) == ["promote"]
    assert not made.sweep(seconds=599).deeds
    made.sim.verdict = Verdict.OK
    assert done(made.sweep(seconds=1)) == ["promote"]
    assert not made.record.back_offs


def test_waits_grow_to_a_day_and_no_more() -> None:
    made = candidate()
    made.sim.verdict = Verdict.PARTNER_DOWN
    waits = []
    for _ in range(11):
        made.sweep()
        (back_off,) = [b for b in made.record.back_offs if b.step == "promote"]
        waits.append(back_off.until - back_off.at)
        made.sim.now = back_off.until
    assert waits[0] == SHORTEST
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST


def test_a_quota_is_waited_for() -> None:
    made = candidate()
    made.sim.verdict = Verdict.QUOTA
    assert done(made.sweep(), Result.FAILED) == ["promote"]
    made.sim.verdict = Verdict.OK
    assert not made.sweep(minutes=59).deeds  # the partner asked for an hour
    assert done(made.sweep(minutes=1)) == ["promote"]


@pytest.mark.parametrize("verdict", [Verdict.LOGIN_REJECTED, Verdict.WRONG_CA, Verdict.CLIENT_REJECTED])
def test_a_persons_task_is_not_tried_again(verdict: Verdict) -> None:
    made = candidate()
    made.sim.verdict = verdict
    assert done(made.sweep(), Result.FAILED) == ["promote"]
    for _ in range(20):
        made.sweep(days=1)
    assert made.sim.logins.count(2) == 1
    assert made.told[0].phase is Phase.STOPPED


def test_a_persons_action_ends_the_wait() -> None:
    made = candidate()
    made.sim.verdict = Verdict.PARTNER_DOWN
    made.sweep()
    made.sim.registry().add_application(MZP, "another", "id-2")
    made.sim.verdict = Verdict.OK
    assert done(made.sweep(seconds=1)) == ["settle", "promote"]


def test_the_schedulers_own_steps_end_no_wait() -> None:
    made = candidate()
    made.sim.verdict = Verdict.PARTNER_DOWN
    made.sweep()
    made.record = made.record.failed(made.record.back_offs[0], before=0, valid_until=None)
    head = made.sim.account.head.number
    made.record = made.record.succeeded("retire", before=head, after=head + 1)
    assert made.record.waiting("promote", head + 1, made.sim.now)


def test_a_straggler_is_named_and_waited_for() -> None:
    made = begun(promotion=AUTO)
    made.answers = True
    made.sweep(days=DUE)
    made.sim.held = frozenset({"nginx on web-1"})
    waiting = [deed for deed in made.sweep(days=8).deeds if deed.result is Result.WAITING]
    assert [deed.do for deed in waiting] == ["retire"]
    assert "nginx on web-1" in waiting[0].message
    assert not made.sweep(minutes=1).failures
    made.sim.held = frozenset()
    assert done(made.sweep(minutes=5)) == ["retire"]


def test_unstorable_evidence_stops_nothing_else() -> None:
    made = begun()
    made.sim.registry().add_application(MZP, "another", "id-2")
    made.settles = False
    assert done(made.sweep(days=DUE)) == ["settle", "draft", "submit", "prove"]


def test_an_unsent_request_stops_nothing_else() -> None:
    made = begun()
    made.submit = lambda account, request: None  # type: ignore[method-assign]
    made.sweep(days=DUE)
    report = made.sweep(days=8)
    assert (done(report), done(report, Result.WAITING)) == (["prove"], ["submit"])


def test_forked_evidence_is_a_failure() -> None:
    made = begun()
    made.forked = True
    made.sim.registry().add_application(MZP, "another", "id-2")
    assert done(made.sweep(), Result.FAILED)[0] == "settle"


def test_only_people_can_send_it() -> None:
    made = begun()
    made.submit = lambda account, request: None  # type: ignore[method-assign]
    report = made.sweep(days=DUE)
    assert (done(report)[0], done(report, Result.WAITING)) == ("draft", ["submit"])
    assert not made.record.back_offs
    assert not report.failures


@pytest.mark.parametrize("part", ["poll", "notify", "hook"])
def test_a_failure_outside_stops_nothing(part: str) -> None:
    made = begun()
    made.fails[part] = PartnerUnavailableError("the mail server is away")
    report = made.sweep(days=DUE)
    assert made.sent == [2]
    assert report.failures


@pytest.mark.parametrize("part", ["poll", "submit"])
def test_a_vault_that_is_away_ends_the_sweep(part: str) -> None:
    made = begun()
    made.fails[part] = VaultUnavailableError("sealed")
    with pytest.raises(VaultUnavailableError):
        made.sweep(days=DUE)
    del made.fails[part]
    made.sweep()
    assert made.sent == [2]


def test_a_wrong_clock_sends_and_retires_nothing() -> None:
    made = begun()
    made.sim.now += timedelta(days=DUE)
    sweeps, writes = made.sweeps(), len(made.sim.writes)

    def wrong() -> object:
        raise RefusedError("this machine's clock is 10 min ahead of Vault's")

    sweeps.clock = wrong  # type: ignore[assignment]
    with pytest.raises(RefusedError):
        sweeps.sweep()
    assert (made.sent, len(made.sim.writes)) == ([], writes)
    made.sweep()
    assert made.sent == [2]  # it resumes by itself


@pytest.mark.parametrize("fence", range(1, 7))
def test_a_lost_lock_ends_the_sweep(fence: int) -> None:
    made = begun(promotion=AUTO)
    made.answers, made.lost_at = True, fence
    is_way_back = fence in (4, 5)  # then that is not tried, and what was accepted is made current: no try is sent twice
    with nullcontext() if is_way_back else pytest.raises(LostLockError):
        made.sweep(days=DUE)
    made.sim.now += timedelta(minutes=3)  # a canary may be on its way
    made.sweep()
    assert stages(made)[-1] == "current"
    assert made.sim.logins.count(2) == 1


def test_no_canary_without_the_lock() -> None:
    made = candidate()
    made.lost_at = made.fences + 1
    with pytest.raises(LostLockError):
        made.sweep()
    before = len(made.sim.logins)
    assert made.sim.account.generation(2).stage is Stage.CANDIDATE
    assert len(made.sim.logins) == before


def test_a_fault_of_ours_shows_no_text() -> None:
    made = begun()

    def submit(*_: object) -> None:
        raise KeyError(Secret("hunter2").reveal())

    made.submit = submit  # type: ignore[assignment]
    (failure,) = made.sweep(days=DUE).failures
    assert "hunter2" not in repr(failure)


def test_what_a_killed_command_left_is_settled() -> None:
    made = begun()
    made.sweep()
    made.sim.registry().add_application(MZP, "another", "id-2")  # nothing was settled
    assert done(made.sweep()) == ["settle"]
    assert not made.sim.account.outbox


def test_a_current_set_is_proven_each_week() -> None:
    made = begun()
    assert [done(made.sweep(days=1)) for _ in range(14)].count(["prove"]) == 2


def test_a_long_downtime_is_caught_up() -> None:
    made = begun(promotion=AUTO)
    made.answers = True
    sweeps = made.sweeps(timedelta(minutes=5))
    assert sweeps.sweep().missed == 0
    made.sim.now += timedelta(days=DUE)
    report = sweeps.sweep()
    assert report.missed == DUE * 288 - 1
    assert done(report) == ["draft", "submit", "promote"]


def test_a_clock_set_back_counts_nothing() -> None:
    made = begun()
    sweeps = made.sweeps(timedelta(minutes=5))
    sweeps.sweep()
    made.sim.now -= timedelta(hours=2)
    assert sweeps.sweep().missed == 0


def test_idle_accounts_are_not_read() -> None:
    made = begun()
    assert made.sweep().read == 1
    assert made.sweep(hours=1).read == 0
    assert made.sweep(days=1).read == 1  # each day everything is read


def test_a_changed_account_is_read() -> None:
    made = begun()
    made.sweep()
    made.sim.registry().add_application(MZP, "another", "id-2")
    assert done(made.sweep()) == ["settle"]


def test_a_new_process_reads_everything_once() -> None:
    """It shows numbers of each account."""
    made = begun()
    made.sweep()
    sweeps = made.sweeps(timedelta(minutes=5))
    assert [sweeps.sweep().read for _ in range(2)] == [1, 0]
    assert MZP in sweeps.standings


def test_a_dry_run_changes_nothing() -> None:
    made = begun()
    made.sim.now += timedelta(days=DUE)
    writes, record = len(made.sim.writes), made.record
    report = made.sweeps().rehearse()
    assert done(report, Result.WOULD) == ["draft"]
    assert (len(made.sim.writes), made.record, made.fences, made.sent) == (writes, record, 0, [])


def test_an_end_waits_for_the_current_account() -> None:
    made = begun()
    sweeps = made.sweeps()
    sweeps.ending = lambda: True
    assert not sweeps.sweep().deeds
    assert not made.told


def test_errors_of_the_tree_are_kept() -> None:
    made = begun()
    made.fails["submit"] = RefusedError("the mail server refuses", hint="broker mail test")
    report = made.sweep(days=DUE)
    (failure,) = report.failures
    assert (failure.message, failure.hint) == ("the mail server refuses", "broker mail test")
    assert failure.until == made.sim.now + SHORTEST
    assert isinstance(made.fails["submit"], BrokerError)
