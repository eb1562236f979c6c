"""Two replicas of the service, and what may happen at both at the same time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import pytest

from broker.embedded.up import Embedded
from broker.issuing.batch_issuer import OLDEST
from broker.vault.connection import Connection
from tests.chaos.linearizable import DONE, Model, Operation, Phase, Search
from tests.support.depth import sampled
from tests.support.replicas import ASKED, Replica, Replicas, grounded, replicas
from tests.support.saved_states import ACCOUNT, SavedStates
from tests.support.service_books import Answer, asking, assert_recorded, held_until, leases_in_evidence, timed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

Headers = Mapping[str, str]
GRANTED: Final = (200, 201)


@pytest.fixture(scope="module")
def saved(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SavedStates]:
    with grounded(vault_server, tmp_path_factory.mktemp("two")) as made:
        yield made


@pytest.fixture
def token(saved: SavedStates) -> Headers:
    """The header of a consumer; the account has a second candidate."""
    saved.put("renewed")
    return {"X-Vault-Token": Path(saved.token()).read_text()}


@pytest.fixture
def two(saved: SavedStates, token: Headers) -> Iterator[Replicas]:
    with replicas(saved.system, 2) as made:
        yield made


def bundles(replica: Replica, headers: Headers, **more: str) -> Callable[[], httpx.Response]:
    return lambda: replica.post(headers=headers, **{**ASKED, **more})


def settled(answers: list[Answer], count: int = 3) -> None:
    """Wait for that many further answers."""
    seen = len(answers)
    while len(answers) < seen + count:
        time.sleep(0.01)


@pytest.mark.deep
def test_grants_against_a_promotion(saved: SavedStates, two: Replicas, token: Headers) -> None:
    one, other = two.running
    with asking(bundles(one, token), bundles(other, token)) as answers:
        settled(answers)
        two.run("rotation", "promote", ACCOUNT)
        promoted = time.monotonic()
        settled(answers)
        while {answer.generation for answer in answers[-8:]} != {2}:
            settled(answers)
    assert {answer.status for answer in answers} == {201}
    late = [answer for answer in answers if answer.generation == 1 and answer.began > promoted + OLDEST]
    assert not late, "a bundle of the old generation left later than is promised"
    assert_recorded(saved.system, answers)
    assert two.run("rotation", "retire", ACCOUNT, "--generation", "1", code=None).code == 7


def test_grants_against_retirement(saved: SavedStates, two: Replicas, token: Headers) -> None:
    """Leases of two seconds: when `retire` succeeds, the last of the old generation is over, and none follows."""
    one, other = two.running
    with asking(bundles(one, token, ttl="2s"), bundles(other, token, ttl="2s")) as answers:
        settled(answers)
        two.run("rotation", "promote", ACCOUNT)
        retire = ("rotation", "retire", ACCOUNT, "--generation", "1")
        while two.run(*retire, code=None, disturbance="tests.support.replicas:with_true_clocks").code == 7:
            pass
        retired, clock = time.monotonic(), datetime.now(UTC).timestamp()
        settled(answers, 8)
    old = [answer for answer in answers if answer.status == 201 and answer.generation == 1]
    assert old
    assert max(answer.expires for answer in old) <= clock
    assert max(answer.ended for answer in old) <= retired
    assert {answer.generation for answer in answers[-4:]} == {2}
    leases_in_evidence(saved.system)


def test_grants_against_a_suspension(saved: SavedStates, two: Replicas, token: Headers) -> None:
    one, other = two.running
    with asking(bundles(one, token), bundles(other, token)) as answers:
        settled(answers)
        two.run("account", "suspend", ACCOUNT, "--reason", "stolen")
        suspended = time.monotonic()
        while {answer.status for answer in answers[-8:]} != {409}:
            settled(answers)
    assert {answer.status for answer in answers} == {201, 409}
    assert not [answer for answer in answers if answer.status == 201 and answer.began > suspended + OLDEST]
    assert_recorded(saved.system, answers)


def test_one_key_at_both(saved: SavedStates, two: Replicas, token: Headers) -> None:
    """Requests with one Idempotency-Key share a lease, at either replica, and its holding is not shared by others."""
    headers = {**token, "Idempotency-Key": "job-17"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: timed(bundles(two.running[n % 2], headers)), range(24)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["lease_id"] for answer in answers}) == 1
    assert_recorded(saved.system, answers)
    named = {**ASKED, "lease_id": answers[0].body["lease_id"]}
    for replica in two.running:
        assert replica.post("/v1/leases/revoke", token, **named).status_code == 204
        assert not held_until(saved.system, 1), "the lease was the only one"


def test_a_revoked_key_is_granted_again(saved: SavedStates, two: Replicas, token: Headers) -> None:
    """The other replica has just granted this key: what it remembers of the record is no longer true."""
    one, other = two.running
    headers = {**token, "Idempotency-Key": "job-17"}
    first = timed(bundles(one, headers))
    assert other.post("/v1/leases/revoke", token, lease=first.body["lease"]).status_code == 204
    again = timed(bundles(one, headers))
    assert_recorded(saved.system, [again])
    assert one.post("/v1/leases/renew", token, lease=again.body["lease"]).status_code == 200


def test_grants_after_an_operators_revocation(saved: SavedStates, two: Replicas, token: Headers) -> None:
    """A replica that knows the record from before it grants for a moment what is revoked too; then all is on record."""
    one, other = two.running
    before = [timed(bundles(replica, token)) for replica in (one, other, one, other)]
    reader = next(iter(held_until(saved.system, 1)))
    two.run("lease", "revoke", "--account", ACCOUNT, "--consumer", reader, "--reason", "left")
    renewable: list[Answer] = []
    while len(renewable) < 2:
        asked = two.running[len(renewable)]
        granted = timed(bundles(asked, token))
        answer = asked.post("/v1/leases/renew", token, lease=granted.body["lease"])
        assert answer.status_code in (200, 403)
        if answer.status_code == 200:
            renewable.append(granted)
            assert_recorded(saved.system, renewable)
    for answered in before:
        assert {
            each.post("/v1/leases/renew", token, lease=answered.body["lease"]).status_code for each in two.running
        } == {403}


@pytest.mark.deep
def test_flat_requests_follow_a_promotion(saved: SavedStates, two: Replicas, token: Headers) -> None:
    """They share a lease: each generation that was answered is held until the last end that was said."""
    one, other = two.running
    with asking(lambda: one.get(token), lambda: other.get(token)) as answers:
        settled(answers)
        two.run("rotation", "promote", ACCOUNT)
        while {answer.generation for answer in answers[-8:]} != {2}:
            settled(answers)
        settled(answers)
    assert {answer.status for answer in answers} == {200}
    assert_recorded(saved.system, answers)
    assert len(leases_in_evidence(saved.system)) == 1


def test_a_shared_lease_hides_no_generation(saved: SavedStates, two: Replicas, token: Headers) -> None:
    """Another process of the consumer gets generation 2 under the same lease: the first still uses 1."""
    one, other = two.running
    first = timed(lambda: one.get(token))
    two.run("rotation", "promote", ACCOUNT)
    answers = [timed(lambda: other.get(token)), timed(lambda: one.get(token))]
    assert {answer.generation for answer in [first, *answers]} == {1, 2}
    assert_recorded(saved.system, [first, *answers])


def renews(operation: Operation, state: _Lease, _: Phase) -> Iterator[tuple[_Lease, Phase]]:
    if (operation.code == 200) is not state.visible:
        yield state, DONE


class _Lease:
    """Whether a lease is revoked."""

    def __init__(self, revoked: bool) -> None:
        self.visible = revoked

    def __hash__(self) -> int:
        return hash(self.visible)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lease) and other.visible == self.visible


def revokes(operation: Operation, _state: _Lease, _: Phase) -> Iterator[tuple[_Lease, Phase]]:
    if operation.code == 204:
        yield _Lease(revoked=True), DONE


LEASE: Final[Model[_Lease]] = {"renew": renews, "revoke": revokes}


@pytest.mark.parametrize("round_", sampled(range(4), every=4))
def test_renewals_against_revocations(two: Replicas, token: Headers, round_: int) -> None:
    """At both replicas, in some order: after a revocation nothing renews; revoking twice is revoking once."""
    text = timed(bundles(two.running[0], token)).body["lease"]
    clock = itertools.count()

    def act(name: str, replica: Replica) -> Operation:
        start = next(clock)
        answer = replica.post(f"/v1/leases/{name}", token, lease=text, **({"ttl": "10m"} if name == "renew" else {}))
        return Operation(name, start, next(clock), answer.status_code)

    names = ["renew", "renew", "revoke", "renew", "renew", "revoke", "renew", "renew"]
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(act, name, two.running[(n + round_) % 2]) for n, name in enumerate(names)]
        history = [each.result() for each in running]
    assert {operation.code for operation in history if operation.name == "revoke"} == {204}
    search = Search(LEASE, history, _Lease(revoked=False), _Lease(revoked=True))
    assert search.linearizable, search.report


def test_a_model_notices_a_late_renewal() -> None:
    """A control."""
    history = [Operation("revoke", 0, 1, 204), Operation("renew", 2, 3, 200)]
    assert not Search(LEASE, history, _Lease(revoked=False), None).linearizable
