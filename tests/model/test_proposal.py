"""Proposals of replies: bounded, each once, and over when what they are about has happened."""

from __future__ import annotations

import pytest

from broker.copies import replace
from broker.errors import ConflictError, UnknownNameError
from broker.model.finding import Finding
from broker.model.proposal import (
    MOST_CLOSED,
    MOST_WAITING,
    Arrival,
    Outcome,
    Proposal,
    concluded,
    found,
    next_step,
    proposed,
    reply_id,
    waiting,
)
from broker.vault.documents import decoded, encoded
from tests.support.accounts import MZP, NOW, later, with_candidate, with_current, with_open_request

WORSE = Finding.error("reply.ca", "the certificate is signed by a CA that is not accepted")


def a_proposal(id_: str = "a1", kind: Arrival = Arrival.REPLY, **fields: object) -> Proposal:
    return replace(Proposal(id_, kind, NOW, "mail", request=1, material="PEM"), **fields)  # type: ignore[arg-type]


def test_mail_twice_is_one_proposal() -> None:
    once = proposed((), a_proposal())
    assert proposed(once, a_proposal()) == once
    dismissed = concluded(once, MZP, "a1", Outcome.DISMISSED, "a forgery")
    assert proposed(dismissed, a_proposal()) == dismissed


def test_good_replies_outlast_a_flood() -> None:
    flood = [a_proposal(f"b{n}", findings=(WORSE,), received=later(minutes=n)) for n in range(20)]
    flood += [a_proposal(f"c{n}", Arrival.UNREADABLE) for n in range(20)]
    held: tuple[Proposal, ...] = ()
    for one in [*flood, a_proposal("good", received=later(days=1))]:
        held = proposed(held, one)
    assert len(held) == MOST_WAITING
    assert found(held, MZP, "good").id == "good"
    assert [p.received for p in held] == sorted(p.received for p in held)


def test_closed_ones_are_bounded_and_small() -> None:
    held: tuple[Proposal, ...] = ()
    for number in range(MOST_CLOSED + 5):
        held = concluded(proposed(held, a_proposal(f"d{number}")), MZP, f"d{number}", Outcome.DISMISSED, "no")
    held = proposed(held, a_proposal())
    assert len(held) == MOST_CLOSED + 1
    assert not any(p.material for p in held if p.outcome)


def test_conclusion_is_repeatable_not_changed() -> None:
    done = concluded((a_proposal(),), MZP, "a1", Outcome.IMPORTED)
    assert concluded(done, MZP, "a1", Outcome.IMPORTED) == done
    with pytest.raises(ConflictError, match="was imported already"):
        concluded(done, MZP, "a1", Outcome.DISMISSED, "no")
    with pytest.raises(UnknownNameError):
        concluded(done, MZP, "a2", Outcome.DISMISSED, "no")


def test_answered_request_ends_its_proposals() -> None:
    opened, answered = with_open_request(), with_candidate()
    one = a_proposal(received=later(hours=-1))
    assert waiting([one], opened) == (one,)
    assert waiting([one], answered) == ()
    late = replace(one, received=later(days=30))
    assert waiting([late], answered) == (late,)


def test_expiry_notice_ends_with_the_next_set() -> None:
    account = with_current()
    assert account.current
    earlier, newer = later(hours=-1), account.current.since
    assert not waiting([a_proposal(kind=Arrival.EXPIRY, request=0, received=earlier)], account)
    assert waiting([a_proposal(kind=Arrival.EXPIRY, request=0, received=newer)], account)


@pytest.mark.parametrize("kind", Arrival)
def test_every_kind_has_a_next_step(kind: Arrival) -> None:
    one = a_proposal(kind=kind, download_by=NOW)
    what, command = next_step(with_open_request(), one)
    assert what
    assert command.startswith("broker ")
    assert reply_id(MZP, one) in command or kind is Arrival.LINK


def test_a_question_is_shown_before_an_import() -> None:
    one = a_proposal(findings=(WORSE,))
    assert next_step(with_open_request(), one) == ("a reply waits for a decision", "broker reply show mzp-1/a1")


def test_proposal_round_trips() -> None:
    one = a_proposal(findings=(WORSE,), holds=("1 certificate",), download_by=NOW, outcome=Outcome.DISMISSED)
    assert decoded(encoded(one), Proposal, "a record") == one
