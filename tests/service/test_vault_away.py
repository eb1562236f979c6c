"""A service whose Vault misbehaves or is away: nothing is issued, callers hear when to try again, and it recovers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import pytest

from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from broker.vault.layout import right
from tests.support.depth import sampled
from tests.support.proxy import Cue, Fault, Proxy, proxied
from tests.support.replicas import Replica, Replicas, grounded, replicas
from tests.support.saved_states import SavedStates
from tests.support.service_books import assert_recorded, held_until, leases_in_evidence, timed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Headers = Mapping[str, str]
PATIENT: Final = {"BROKER_TIMEOUT": "2s"}  # longer than Retry-After
GONE: Final = (Fault.SEALED, Fault.DROPPED, Fault.FAILED, Fault.THROTTLED, Fault.NOT_ACTIVE, Fault.BAD_GATEWAY)
WRONG: Final = (Fault.GARBAGE, Fault.PAGE, Fault.EMPTY, Fault.TO_THE_DEAD, Fault.ELSEWHERE, Fault.GAVE_UP)
ONCE: Final = (Fault.LOST, Fault.STALE, Fault.HALF, Fault.BEHIND, Fault.NOT_ACTIVE, Fault.DROPPED, Fault.THROTTLED)
DOCUMENTS: Final = ("consumers", "evidence/issued", "accounts")


@dataclass
class Scene:
    """A replica whose Vault is behind a proxy, and the header of a consumer."""

    saved: SavedStates
    services: Replicas
    replica: Replica
    proxy: Proxy
    token: Headers

    def crowd(self, count: int) -> list[httpx.Response]:
        """Ask for that many bundles concurrently, each as a caller that the service has not seen."""
        headers = [{"X-Vault-Token": f"s.{n}"} if n % 2 else self.token for n in range(count)]
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda each: self.replica.post(headers=each), headers))

    @property
    def threads(self) -> int:
        return int(_status(self.replica, "Threads"))

    @property
    def memory(self) -> int:
        """Resident memory in KiB."""
        return int(_status(self.replica, "VmRSS").split()[0])


def _status(replica: Replica, name: str) -> str:
    lines = Path(f"/proc/{replica.pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


@pytest.fixture(scope="module")
def scene(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with grounded(vault_server, tmp_path_factory.mktemp("away")) as saved:
        saved.put("promoted")
        token = {"X-Vault-Token": Path(saved.token()).read_text()}
        with (
            proxied(saved.system.vault.settings.address, lambda _: None) as proxy,
            replicas(saved.system) as services,
        ):
            replica = services.start(changes={**PATIENT, "VAULT_ADDR": proxy.address})
            yield Scene(saved, services, replica, proxy, token)


@pytest.fixture(autouse=True)
def calm(scene: Scene) -> Iterator[None]:
    """Each test begins with a service that issues, and leaves one that has recovered by itself."""
    for _ in range(2):
        scene.proxy.plan()
        while (answer := scene.replica.post(headers=scene.token)).status_code == 503:
            pass
        assert answer.status_code == 201, answer.text
        if _ == 0:
            yield


@pytest.mark.parametrize("fault", sampled((*GONE, *WRONG), every=12))
def test_nothing_is_issued_while_vault_is_away(scene: Scene, fault: Fault) -> None:
    """With old readings still in memory too; to callers it is 503, and they do not all come back together."""
    lease = scene.replica.post(headers=scene.token).json()["lease"]
    before = leases_in_evidence(scene.saved.system)
    scene.proxy.plan(Cue(fault, lasting=True))
    for _ in range(2):
        answers = scene.crowd(24)
        answers += [scene.replica.post(f"/v1/leases/{verb}", scene.token, lease=lease) for verb in ("renew", "revoke")]
        answers.append(scene.replica.client.get("/v1/leases", headers=scene.token))
        assert {answer.status_code for answer in answers} <= {503}, [a.text for a in answers if a.status_code != 503]
        assert {int(answer.headers["retry-after"]) for answer in answers} <= set(range(2, 11))
        assert len({answer.headers["retry-after"] for answer in answers}) > 2
    scene.proxy.plan()
    if not fault.value.startswith("done"):  # else evidence of a lease may be stored that nobody got
        assert leases_in_evidence(scene.saved.system) == before


def test_only_one_request_tries_an_absent_vault(scene: Scene) -> None:
    """Others are refused without a wait; threads and memory stay bounded."""
    scene.proxy.plan(Cue(Fault.HANGS_BEFORE, lasting=True))
    assert {answer.status_code for answer in scene.crowd(24)} == {503}
    memory = scene.memory
    scene.proxy.plan(Cue(Fault.HANGS_BEFORE, lasting=True))
    for _ in range(5):
        assert {answer.status_code for answer in scene.crowd(40)} == {503}
    asked = [passed for passed in scene.proxy.passed if not passed.path.startswith("/v1/sys/health")]
    assert len(asked) < 60, "200 requests of callers are not 200 requests to Vault"
    assert scene.threads < 48  # 16 for readings, 16 for records, and those of the event loop
    assert scene.memory - memory < 8 * 1024
    assert httpx.get(f"{scene.replica.health}/livez", trust_env=False, timeout=30).status_code == 200


@pytest.mark.parametrize(("fault", "document"), sampled([(f, d) for f in ONCE for d in DOCUMENTS], every=30))
def test_one_fault_is_got_over(scene: Scene, fault: Fault, document: str) -> None:
    """At the write of a record or of evidence, or at a reading: a bundle is answered, and is on record."""
    mount = scene.saved.system.vault.settings.mount
    scene.proxy.plan(Cue(fault, path=f"/v1/{mount}/data/{document}/.*"))
    answer = timed(lambda: scene.replica.post(headers=scene.token, account="acme", application="reporting", ttl="50m"))
    assert answer.status == 201, answer.body
    assert held_until(scene.saved.system, 1)
    assert answer.body["lease_id"] in leases_in_evidence(scene.saved.system)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_broker_denial_is_not_the_callers(scene: Scene, document: str) -> None:
    """Else consumers would take the loss of a right of ours for the end of theirs, and drop their bundles."""
    system = scene.saved.system
    other = system.vault.consumer_token("stranger", right("stellantis", "stand-in", "acme", "reporting"))
    system.ok("app", "add", "acme/late")  # so that a service reads the account again
    scene.proxy.plan(Cue(Fault.DENIED, path=f"/v1/{system.vault.settings.mount}/data/{document}/.*", lasting=True))
    token = {"X-Vault-Token": other.reveal()}  # of a consumer whose record was never read
    while (answer := scene.replica.post(headers=token)).status_code == 201:
        pass  # by what was read before
    assert answer.status_code == 503


@pytest.mark.chaos
def test_every_fault_at_every_request(scene: Scene) -> None:
    """Each at each kind of request of a grant: a bundle that is on record, or none and an answer that says why."""
    mount, rows = scene.saved.system.vault.settings.mount, []
    paths = [f"{mount}/data/{document}/.*" for document in DOCUMENTS] + ["sys/capabilities", "auth/token/lookup"]
    for fault in set(Fault) - {Fault.REVOKED}:
        for path in paths:
            token = {"X-Vault-Token": Path(scene.saved.token()).read_text()}  # a new one: nothing is known of it
            scene.proxy.plan(Cue(fault, path=f"/v1/{path}"))
            answer = timed(partial(scene.replica.post, headers=token))
            scene.proxy.plan()
            rows.append({"command": "serve", "fault": fault.value, "lasting": False, "code": answer.status})
            if answer.status == 201:
                assert answer.body["lease_id"] in leases_in_evidence(scene.saved.system)
            while scene.replica.post(headers=scene.token).status_code == 503:
                pass
    if folder := os.environ.get("CHAOS_RESULTS"):
        kept = {"seed": 0, "whole": len(rows), "rows": rows}
        (Path(folder) / "faults-serve.json").write_text(json.dumps(kept))
    bad = {(row["fault"], row["code"]) for row in rows if row["code"] not in (201, 503)}
    # These say that Vault knows no such account, or nothing good of the token
    assert bad <= {(fault.value, 403) for fault in (Fault.INVALID, Fault.MISSING, Fault.WRONG_SHAPE)}


@pytest.mark.deep
def test_a_lost_answer_forks_no_chain(scene: Scene) -> None:
    """Each third write of evidence has its answer lost, under a crowd: no bundle is lost, and the chain is whole."""
    mount = scene.saved.system.vault.settings.mount
    path = f"/v1/{mount}/data/evidence/issued/.*"
    scene.proxy.plan(*(Cue(Fault.LOST, path=path, nth=n) for n in range(1, 30, 3)))
    answers = [timed(lambda: scene.replica.post(headers=scene.token)) for _ in range(30)]
    assert {answer.status for answer in answers} == {201}
    assert_recorded(scene.saved.system, answers)
