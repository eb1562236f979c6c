"""Replies that are wrong, late, doubled or out of order end as if only the right one had come."""

from __future__ import annotations

from itertools import permutations

import pytest

from broker.errors import RefusedError
from broker.model.changes import requesting
from broker.model.generation import Closed
from broker.rotation.receive import LateReplyError
from tests.rotation.simulation import Simulation
from tests.rotation.test_receive import CAS, MIDDLE, NEW, OLD, _request, received, renewing
from tests.support import pki
from tests.support.accounts import BY, MZP, STAMP
from tests.support.depth import sampled

THIRD = pki.a_key("third")
REPLIES = {
    "known": OLD,  # of request 1, which has its generation
    "superseded": NEW,  # of request 2, which was superseded
    "open": pki.a_leaf(MIDDLE, THIRD),
    "stranger": pki.a_leaf(MIDDLE, pki.a_key("stranger")),
}


def superseded() -> Simulation:
    """Return request 1 answered, 2 superseded, 3 open."""
    sim = renewing()
    found = sim.read(MZP)
    account = requesting.closed(found.account, 2, Closed.SUPERSEDED, STAMP)
    account = requesting.requested(account, _request(3, THIRD), by=BY)
    sim.write(account, replacing=found.version)
    return sim


def taken(sim: Simulation, name: str) -> int:
    """Return the generation that reply `name` comes to, 0 if it is refused."""
    try:
        return received(sim, REPLIES[name], *CAS).generation.number
    except LateReplyError:
        assert name == "superseded"
    except RefusedError:
        assert name == "stranger"
    return 0


@pytest.mark.parametrize("order", sampled(map(list, permutations(REPLIES)), every=4))
def test_replies_in_any_order(order: list[str]) -> None:
    sim = superseded()
    for name in (*order, *order):
        assert taken(sim, name) == {"known": 1, "open": 2}.get(name, 0)
    assert [r.closed for r in sim.account.requests] == [Closed.ANSWERED, Closed.SUPERSEDED, Closed.ANSWERED]
    assert [g.parts.key for g in sim.account.generations] == ["kv:1", "kv:3"]
    assert not sim.account.open_request


def test_all_in_one_mail() -> None:
    sim = superseded()
    assert received(sim, *REPLIES.values(), *CAS).generation.number == 2
    assert received(sim, *REPLIES.values(), *CAS).generation.number == 2
