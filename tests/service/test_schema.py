"""Requests that a generator makes of the API's description: no fault, and no answer that the description lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from tests.support.depth import sampled
from tests.support.replicas import ASKED, Replica, grounded, replicas

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
Mode = GenerationMode
Made: TypeAlias = Case[Any]
# Requests of each operation. What fits the description may be refused: a term of no length, a name that is unknown
CASES: Final = [(Mode.POSITIVE, 5), (Mode.NEGATIVE, 5), (Mode.POSITIVE, 200), (Mode.NEGATIVE, 300)]
LEFT_OUT: Final[list[Any]] = [positive_data_acceptance]
WAITS: Final = "/v1/wait"  # it answers when something happens


@dataclass
class Served:
    """A replica, the headers of a consumer of it, and a lease."""

    replica: Replica
    headers: dict[str, str]
    lease: str
    lease_id: str

    def true(self, case: Made) -> Made:
        """Return `case` with names and a lease that exist."""
        known: dict[str, Any] = {**ASKED, "lease": self.lease, "lease_id": self.lease_id}
        case.path_parameters = {name: known.get(name, value) for name, value in (case.path_parameters or {}).items()}
        if isinstance(case.body, dict):
            case.body = {name: known.get(name, value) for name, value in case.body.items()}
        return case


@pytest.fixture(scope="module")
def served(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with grounded(vault_server, tmp_path_factory.mktemp("schema")) as saved:
        saved.put("promoted")
        headers = {"X-Vault-Token": Path(saved.token()).read_text()}
        with replicas(saved.system, 1) as made:
            replica = made.running[0]
            granted = replica.post(headers=headers).json()
            yield Served(replica, headers, granted["lease"], granted["lease_id"])


@pytest.mark.parametrize(("mode", "examples"), [*sampled(CASES[:2], every=1), *sampled(CASES[2:], every=9, start=1)])
def test_answers_are_as_described(served: Served, mode: GenerationMode, examples: int) -> None:
    document = served.replica.client.get("/openapi.json").json()
    answered: Counter[tuple[str, int]] = Counter()
    made: list[Any] = list(schemathesis.openapi.from_dict(document).get_all_operations())
    operations = [result.ok() for result in made]
    assert len(operations) >= 4
    for operation in operations:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode), true=st.booleans())
        def try_it(case: Made, true: bool) -> None:
            asked = served.true(case) if true and case.path != WAITS else case
            answer = asked.call(base_url=served.replica.addresses[0], headers=served.headers)
            answered[case.path, answer.status_code] += 1
            case.validate_response(answer, headers=served.headers, excluded_checks=LEFT_OUT)

        try_it()
    assert mode is Mode.NEGATIVE or any(status < 300 for _, status in answered)
