"""Notices: each event once, whatever is killed, down or dead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Final

import pytest

from broker.copies import replace
from broker.model.account import Account, Contacts
from broker.model.changes import requesting
from broker.model.due import Renewal
from broker.model.generation import Breaker, Halt, RenewalMode, Submission
from broker.model.letter import Letter, LetterKind
from broker.model.notice_rules import Channels
from broker.model.proposal import Arrival, Bounce, Proposal
from broker.model.recipient import WEBHOOK, Recipient
from broker.model.rotation_record import BackOff, RotationRecord
from tests.support.accounts import BY, MZP, NOW, an_account, later, with_answer, with_current, with_open_request
from tests.support.notice_world import Killed, NoticeWorld

DAY: Final = timedelta(days=1)
OPS: Final = "ops@example.test"
DESK: Final = "desk@partner.test"


def due(name: str = MZP, **fields: object) -> Account:
    """Return an account that a person must renew: its certificate ends in 365 days."""
    return replace(with_current(an_account(name)), renewal=RenewalMode.MANUAL, **fields)  # type: ignore[arg-type]


def overdue(via: str = "smtp", name: str = MZP, message_id: str = "", **fields: object) -> Account:
    """Return an account whose partner does not answer."""
    asked = with_open_request(with_current(an_account(name)))
    assert asked.open_request
    sent = Submission(NOW, via, DESK, message_id=message_id)
    return replace(requesting.submitted(asked, asked.open_request.number, sent, by=BY), **fields)  # type: ignore[arg-type]


def world(account: Account, **fields: object) -> NoticeWorld:
    return NoticeWorld({account.name: account}, **fields)  # type: ignore[arg-type]


def dead(of: NoticeWorld, name: str) -> None:
    of.recipients.stored = of.recipients.stored.change(name, lambda r: r.died("no such user", NOW))


def events(of: NoticeWorld, kind: LetterKind | None = None) -> list[str]:
    return [key.removeprefix(f"{MZP}.") for _, key in of.letters_of(kind)]


def test_a_year_tells_each_rung_once() -> None:
    """Sweeps every five hours for a year and a month, with two people in the team: nothing twice, nothing left out."""
    one = world(due(contacts=Contacts((), (OPS, "anna@example.test"))))
    for step in range(int(395 * 24 / 5)):
        one.now = NOW + step * timedelta(hours=5)
        one.sweep()
    notified = one.letters_of()
    assert set(notified.values()) == {1}
    rungs = ["60d", "30d", "14d", "7d", "3d", "1d"]  # after 90 % of its lifetime
    after = ["expired", "expired-1d", "expired-3d", "expired-7d", "expired-14d", "expired-21d", "expired-28d"]
    expected = ["not-due-g1.60d", *(f"due-g1.{rung}" for rung in rungs), *(f"expired-g1.{rung}" for rung in after)]
    assert [key.removeprefix(f"{MZP}.") for to, key in notified if to == OPS] == expected
    assert len(notified) == 2 * len(expected)


def test_what_goes_by_itself_is_in_the_digest() -> None:
    """Renewal is automatic, and a request is on its way: nobody must act before it is late."""
    one = world(overdue(via="manual"))
    one.now = later(hours=20)
    one.sweep()
    assert events(one, LetterKind.DIGEST) == ["sent-r2s.begin"]
    assert not one.letters_of(LetterKind.ALERT)


@pytest.mark.parametrize(
    "zone", ["Pacific/Kiritimati", *(pytest.param(z, marks=pytest.mark.slow) for z in ("UTC", "America/Los_Angeles"))]
)
def test_one_digest_a_day(zone: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Forty accounts, and sweeps every half hour for three days: one mail on each day that has news, after six.

    The time zone of the scheduler's host makes no difference.
    """
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    request.addfinalizer(time.tzset)  # after the variable is restored
    one = NoticeWorld({f"acme-{n}": overdue("manual", f"acme-{n}") for n in range(40)})
    for step in range(3 * 48):
        one.now = NOW + step * timedelta(minutes=30)
        if step == 10:
            one.accounts["late"] = overdue("manual", "late")
        one.sweep()
    digests = [letter for letter in one.sent if letter.kind is LetterKind.DIGEST]
    assert [len(digest.items) for digest in digests] == [40, 1]
    assert [f"{digest.at:%d %H}" for digest in digests] == ["01 12", "02 06"]


@pytest.mark.parametrize("alert", [True, False])
def test_a_kill_sends_nothing_under_a_new_id(alert: bool) -> None:
    """Two accounts and two people, killed before and after each write and each mail, then run again on the next day."""
    contacts = Contacts((), (OPS, "anna@example.test"))
    names = ("acme", "mzp-1")
    accounts = {n: due(n, contacts=contacts) if alert else overdue("manual", n, contacts=contacts) for n in names}
    begin = later(days=340) if alert else later(hours=1)
    kills = 0
    for kill_at in range(1, 200):
        one = NoticeWorld(accounts, now=begin, kill_at=kill_at)
        try:
            one.sweep()
        except Killed:
            kills += 1
        one.kill_at = 0
        one.now += DAY
        for _ in range(2):
            one.sweep()
        assert set(one.letters_of().values()) == {1}, f"killed at {kill_at}"
        assert {to for to, _ in one.letters_of()} == set(contacts.team)
        assert len({key.partition(".")[0] for _, key in one.letters_of()}) == 2
        if one.calls < kill_at:
            break
    assert kills > 20


def test_one_that_is_away_stops_nobody() -> None:
    one = world(due(contacts=Contacts((), (OPS, "anna@example.test"))), now=later(days=340), down={OPS})
    one.sweep()
    assert [letter.to for letter in one.sent] == ["anna@example.test"]
    one.sweep()  # the back-off holds
    assert one.recipients.stored.of(OPS).failures == 1
    one.down, one.now = set(), one.now + timedelta(minutes=5)
    one.sweep()
    assert [letter.to for letter in one.sent] == ["anna@example.test", OPS]
    assert one.recipients.stored.of(OPS) == Recipient(
        OPS, sent_at=one.now, ids=(one.sent[-1].id,), entries=one.sent[-1].entries
    )


def test_a_fault_of_ours_stops_nobody() -> None:
    """A letter that cannot be written counts as one that was not taken."""
    one = world(due(contacts=Contacts((), (OPS, "anna@example.test"))), now=later(days=340))
    deliver = one.notices.deliver

    def broken(letter: Letter) -> None:
        if letter.to == OPS:
            raise KeyError(letter.id)
        deliver(letter)

    one.notices = replace(one.notices, deliver=broken)
    one.sweep()
    assert [letter.to for letter in one.sent] == ["anna@example.test"]
    assert one.recipients.stored.of(OPS).reason == "unexpected KeyError"


def test_an_account_that_fails_stops_no_other() -> None:
    one = NoticeWorld({"mzp-1": due(), "gone": due("gone-2")}, now=later(days=340))
    one.sweep()
    assert len(one.sent) == 1


def test_what_is_over_is_not_sent() -> None:
    """The mail server was away until the partner had answered: only the newest step has a notice."""
    one = world(due(), now=later(days=340), down={OPS})
    one.sweep()
    one.accounts[MZP], one.down, one.now = with_answer(due()), set(), one.now + DAY
    one.sweep()
    assert events(one) == ["candidate-g2.30d"]


def withdrawing(kill_at: int) -> NoticeWorld:
    """One account's step ends, and the next digest is about another account. Killed once, and every hour for two days.

    Return the world at its end.
    """
    ends = tuple(replace(c, not_after=NOW + 20 * DAY) for c in due().certificates)
    one = world(due(certificates=ends), kill_at=kill_at)
    for hour in range(48):
        one.now = later(hours=hour)
        if hour == 2:
            one.accounts[MZP] = with_answer(one.accounts[MZP])
        if hour == 4:
            one.accounts["mzp-2"] = overdue("manual", name="mzp-2")
        if hour == 30:
            one.accounts["mzp-3"] = overdue("manual", name="mzp-3")
        with suppress(Killed):
            one.sweep()
    return one


@pytest.mark.slow
def test_an_entry_is_withdrawn_once() -> None:
    """With the next digest, and with no mail of its own, whenever it is killed."""
    undisturbed = withdrawing(0)
    assert undisturbed.calls > 10
    for kill_at in range(undisturbed.calls + 1):
        one = withdrawing(kill_at)
        letters = {letter.id: letter for letter in one.sent}
        assert Counter(event for _, event in one.letters_of()) == Counter(
            event for _, event in undisturbed.letters_of()
        )
        digests = [letter for letter in letters.values() if letter.kind is LetterKind.DIGEST]
        assert [[e.step for e in letter.withdrawn] for letter in digests] == [["due-g1"], []], kill_at
        published = {e.uid: e.sequence for letter in one.sent for e in letter.entries}
        [withdrawn] = digests[0].withdrawn
        assert withdrawn.sequence > published[withdrawn.uid]
        assert [e.step for e in one.recipients.stored.of(OPS).entries] == ["candidate-g2", "sent-r2s", "sent-r2s"]


def test_the_dead_get_alerts_only() -> None:
    one = world(overdue("manual", contacts=Contacts((), (OPS, "anna@example.test"))), now=later(hours=1))
    dead(one, OPS)
    one.sweep()
    assert [letter.to for letter in one.sent] == ["anna@example.test"]
    one.now = later(days=100)
    one.sweep()
    assert [letter.to for letter in one.sent if letter.kind is LetterKind.ALERT] == [OPS, "anna@example.test"]


def test_added_recipients_get_open_events() -> None:
    """Nobody could be notified: the event is not spent."""
    one = world(due(contacts=Contacts()), now=later(days=340))
    one.sweep()
    assert not one.sent
    one.accounts[MZP] = due()
    one.sweep()
    assert [letter.to for letter in one.sent] == [OPS]


@pytest.mark.parametrize(("via", "reminded"), [("smtp", True), ("manual", False), ("eml", False)])
def test_partner_is_reminded_of_our_mail(via: str, reminded: bool) -> None:
    """On holiday and dead contacts: the next one is reminded too."""
    contacts = Contacts((DESK, "second@partner.test", "third@partner.test"), (OPS,))
    one = world(overdue(via, contacts=contacts), now=later(days=100))
    dead(one, DESK)
    one.sweep()
    reminders = [letter.to for letter in one.sent if letter.kind is LetterKind.REMINDER]
    assert reminders == ([DESK, "second@partner.test"] if reminded else [])
    assert [letter.to for letter in one.sent if letter.kind is LetterKind.ALERT] == [OPS]


@pytest.mark.parametrize(("day", "reminded"), [(300, [DESK]), (360, [])], ids=["late", "in time"])
def test_partner_is_reminded_after_the_end(day: int, reminded: list[str]) -> None:
    """The certificate ended while the partner's people took their time."""
    asked = with_open_request(with_current())
    sent = requesting.submitted(asked, 2, Submission(later(days=day), "smtp", DESK), by=BY)
    one = world(replace(sent, contacts=Contacts((DESK,), (OPS,))), now=later(days=366))
    one.sweep()
    assert [letter.to for letter in one.sent if letter.kind is LetterKind.REMINDER] == reminded
    assert [letter.to for letter in one.sent if letter.kind is LetterKind.ALERT] == [OPS]


def test_the_webhook_is_notified_too() -> None:
    one = world(due(), now=later(days=340), channels=Channels(mail=False, webhook=True))
    one.sweep()
    assert [letter.to for letter in one.sent] == [WEBHOOK]
    assert one.sent[0].items[0].notice.uses == (f"{MZP}/fleet", "batch-7", "web-2")


def test_no_channel_means_no_write() -> None:
    one = world(due(), now=later(days=340), channels=Channels(mail=False, webhook=False))
    one.sweep()
    assert one.calls == 0


def test_the_fence_is_before_each_letter() -> None:
    one = world(due(contacts=Contacts((), (OPS, "anna@example.test"))), now=later(days=340))
    one.sweep()
    assert one.fenced == len(one.sent) == 2


@pytest.mark.parametrize(("machine", "expected"), [(True, []), (False, ["drafted-r2.begin"])])
def test_a_request_that_only_a_person_sends(machine: bool, expected: list[str]) -> None:
    """Renewal is automatic, but a machine cannot use the partner's portal."""
    one = world(with_open_request(with_current()), submits=machine)
    one.sweep()
    assert events(one, LetterKind.ALERT) == expected


def failing(step: str, *, hours: float, head: int) -> RotationRecord:
    return RotationRecord(
        back_offs=(BackOff(step, later(hours=-hours), NOW, NOW, 3, head, "refused", "broker mail test"),)
    )


@pytest.mark.parametrize(
    ("step", "hours", "behind", "kind"),
    [
        ("submit", 6, 0, LetterKind.ALERT),
        ("submit", 5, 0, None),  # a mail server is restarted now and then
        ("submit", 6, 1, None),  # a person did something since
        ("retire", 6, 0, LetterKind.DIGEST),
        ("prove", 6, 0, LetterKind.DIGEST),
    ],
)
def test_a_step_that_keeps_failing_has_a_notice(step: str, hours: float, behind: int, kind: LetterKind | None) -> None:
    account = with_current()
    one = world(account)
    one.records.stored[MZP] = failing(step, hours=hours, head=account.head.number - behind)
    one.sweep()
    assert [letter.kind for letter in one.sent] == ([kind] if kind else [])
    assert all(letter.items[0].notice.hint == "broker mail test" for letter in one.sent)


def test_a_reply_that_waits_has_a_notice() -> None:
    one = world(overdue())
    one.records.stored[MZP] = RotationRecord(proposals=(Proposal("ab12", Arrival.REPLY, NOW, "mail", request=2),))
    one.sweep()
    [letter] = one.sent
    assert letter.kind is LetterKind.ALERT
    assert letter.items[0].notice.step == "reply-ab12"
    assert letter.items[0].notice.hint == f"broker cert import {MZP} --reply {MZP}/ab12"


def test_a_compromise_has_a_notice_each_day() -> None:
    account = with_current()
    reported = tuple(replace(r, compromised=Halt(NOW, "stolen")) for r in account.requests)
    one = world(replace(account, requests=reported))
    for step in range(3 * 24):
        one.now = later(hours=step)
        one.sweep()
    assert events(one, LetterKind.ALERT) == [f"compromised-g1.day-{day}" for day in range(3)]


def test_a_new_breaker_is_a_new_event() -> None:
    one = world(replace(with_answer(with_current()), breaker=Breaker(NOW, 1, 2)))
    one.sweep()
    assert events(one) == [f"stopped-b{NOW:%Y%m%d%H%M}.begin"]


def test_a_removed_account_is_silent() -> None:
    one = world(due(), now=later(days=340), down={OPS})
    one.sweep()
    one.accounts[MZP], one.down = replace(due(), removed=due().suspended), set()
    assert not one.sent


@pytest.mark.parametrize(("lifetime", "first"), [(30, "7d"), (365, "60d"), (1095, "60d")])
def test_short_lives_begin_late(lifetime: int, first: str) -> None:
    """No warning of 60 days for a certificate of 30."""
    account = due()
    ends = tuple(replace(c, not_after=NOW + lifetime * DAY) for c in account.certificates)
    one = world(replace(account, certificates=ends), renewal=Renewal(safety=3 * DAY, share=0.7, lead_time=5 * DAY))
    for step in range(lifetime + 1):
        one.now = NOW + step * DAY
        one.sweep()
    assert [event.rpartition(".")[2] for event in events(one)][:2] == ["begin", first]


def test_only_a_bounce_of_ours_counts() -> None:
    one = world(due(), now=later(days=340))
    one.sweep()
    one.notices.bounced(Bounce("<made-up@credential-broker.invalid>", OPS, "5.1.1", NOW))
    assert not one.recipients.stored.dead(OPS)
    one.notices.bounced(Bounce(one.sent[0].message_id, "forwarded@elsewhere.test", "5.1.1\r\nx", NOW))
    assert one.recipients.stored.of(OPS).reason == "bounced with status 5.1.1  x"
    assert [r.name for r in one.recipients.stored.known] == [OPS]


@pytest.mark.parametrize(("recipient", "dead"), [(DESK, True), ("other@partner.test", False)])
def test_a_bounced_csr_counts_too(recipient: str, dead: bool) -> None:
    """It names the Message-ID of a submission, and an address that is a contact of that account."""
    one = world(overdue(message_id="<csr-1@credential-broker.invalid>"))
    one.notices.bounced(Bounce("<csr-1@credential-broker.invalid>", recipient, "5.1.1", NOW))
    assert one.recipients.stored.dead(recipient) is dead


def test_a_bounce_of_others_reads_nothing() -> None:
    one = world(due())

    def unread() -> Iterable[Account]:
        pytest.fail("accounts are read for a mail of somebody else")

    replace(one.notices, accounts=unread).bounced(Bounce("<1@spam.test>", OPS, "5.1.1", NOW))
    assert not one.recipients.stored.known


def test_a_test_by_name_revives() -> None:
    one = world(due())
    dead(one, OPS)
    assert [tested.error for tested in one.notices.test([OPS], by_name=False)] == [None]
    assert one.recipients.stored.dead(OPS)
    list(one.notices.test([OPS], by_name=True))
    assert not one.recipients.stored.dead(OPS)
    assert one.recipients.stored.of(OPS).tested_at == one.now
    one.notices.bounced(Bounce(one.sent[-1].message_id, OPS, "5.1.1", NOW))
    assert one.recipients.stored.dead(OPS)


def test_a_failed_test_is_reported() -> None:
    one = world(due(), down={OPS})
    [tested] = one.notices.test([OPS], by_name=True)
    assert tested.error
    assert one.recipients.stored.of(OPS).tested_at is None
