"""The judge of histories is judged: what it must accept, and hand-made lies that it must not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.copies import replace
from tests.chaos.account_model import Generation, Request, State
from tests.chaos.command_model import COMMANDS
from tests.chaos.linearizable import Operation, Search
from tests.support.sources import MODULES, tree

OPEN = State(requests=(Request(1, "answered"), Request(2)), generations=(Generation(1, 1, 1, "current"),), password=1)
OPEN = replace(OPEN, taken=1, good=frozenset({1}))
CURRENT = Generation(1, 1, 1, "current", order=2)
CANDIDATE = Generation(2, 2, 0, "candidate", order=3)
TWO = replace(OPEN, requests=(Request(1, "answered"), Request(2, "answered")), generations=(CURRENT, CANDIDATE))


def op(
    name: str, start: int, end: int, code: int = 0, number: int = 0, said: str = "", **arguments: object
) -> Operation:
    return Operation(name, start, end, code, number, said, arguments)


def explained(before: State, after: State | None, *operations: Operation) -> bool:
    return Search(COMMANDS, operations, before, after).linearizable


def with_applications(*applications: tuple[str, str]) -> State:
    return replace(OPEN, applications=frozenset(applications))


CANCELLED = OPEN.with_request(Request(2, "cancelled"))
PROMOTED = TWO.staged(2, "current", move="promote")


@pytest.mark.parametrize(
    ("before", "after", "operations"),
    [
        (OPEN, OPEN, [op("csr new", 0, 9, number=2), op("csr new", 1, 8, number=2)]),
        (CANCELLED, None, [op("csr new", 0, 9, number=3), op("csr new", 1, 8, number=3)]),
        (OPEN, TWO, [op("cert import", 0, 9, number=2, request=2), op("cert import", 1, 8, number=2, request=2)]),
        (OPEN, CANCELLED, [op("csr cancel", 0, 9, number=2), op("csr cancel", 1, 8, number=2)]),
        (
            OPEN,
            TWO,
            [op("csr cancel", 0, 9, 8, said="request 2 was answered"), op("cert import", 1, 8, number=2, request=2)],
        ),
        (
            TWO,
            PROMOTED,
            [op("rotation promote", 0, 9, number=2), op("rotation promote", 1, 8, 8, said="another canary")],
        ),
    ],
)
def test_what_may_happen_is_accepted(before: State, after: State | None, operations: list[Operation]) -> None:
    assert explained(before, after, *operations), Search(COMMANDS, operations, before, after).report


def test_a_lost_update_is_rejected() -> None:
    operations = [op("app add", 0, 9, application="a"), op("app add", 1, 8, application="b")]
    assert explained(OPEN, with_applications(("a", ""), ("b", "")), *operations)
    assert not explained(OPEN, with_applications(("b", "")), *operations)


def test_two_winners_are_rejected() -> None:
    operations = [op("csr cancel", 0, 9, number=2), op("cert import", 1, 8, number=2, request=2)]
    assert not explained(OPEN, TWO, *operations)
    assert not explained(OPEN, CANCELLED, *operations)


def test_two_requests_of_a_slot_are_rejected() -> None:
    drafts = [op("csr new", 0, 9, number=3), op("csr new", 1, 8, number=4)]
    assert not explained(CANCELLED, None, *drafts)


def test_a_stale_read_is_rejected() -> None:
    operations = [op("csr cancel", 0, 3, number=2), op("csr new", 4, 9, number=2)]
    assert not explained(OPEN, None, *operations)
    assert explained(OPEN, None, replace(operations[0], end=5), operations[1])


def test_revived_stage_is_rejected() -> None:
    rejected = op("rotation reject", 0, 9, generation=2)
    assert explained(TWO, TWO.staged(2, "rejected"), rejected)
    assert not explained(TWO, TWO, rejected)
    promoted = op("rotation promote", 10, 19, number=2, generation=2)
    assert not explained(TWO, PROMOTED, rejected, promoted)


def test_order_against_real_time_is_rejected() -> None:
    first, second = (op("password set", n, n + 1, number=n // 10 + 2, password="p") for n in (0, 10))
    assert explained(OPEN, None, first, second)
    assert not explained(OPEN, None, replace(first, number=3), replace(second, number=2))


def test_older_password_is_rejected() -> None:
    older, newer = (op("password set", 0, 9, number=n, password="p") for n in (2, 3))
    assert not explained(OPEN, replace(OPEN, password=2), older, newer)


def test_concurrent_canaries_are_rejected() -> None:
    alone = op("rotation canary", 0, 9, 8, said="another canary", generation=1)
    assert not explained(OPEN, OPEN, alone)
    assert explained(OPEN, OPEN, alone, op("rotation canary", 1, 8, number=1, generation=1))


@pytest.mark.parametrize("said", ["", "somebody was first", "request 2 was superseded", "request 1 was answered"])
def test_unexplained_loser_is_rejected(said: str) -> None:
    assert not explained(OPEN, TWO, op("csr cancel", 0, 9, 8, said=said), op("cert import", 1, 8, number=2, request=2))


@pytest.mark.parametrize("code", [1, 2, 3, 5, 6, 7])
def test_wrong_exit_code_is_rejected(code: int) -> None:
    lost = op("csr cancel", 0, 9, code, said="request 2 was answered meanwhile")
    assert not explained(OPEN, TWO, lost, op("cert import", 1, 8, number=2, request=2))


def test_wrong_promotion_number_is_rejected() -> None:
    assert not explained(TWO, PROMOTED, op("rotation promote", 0, 9, number=1))


STORED = frozenset({"asked", "set", "stored"})
TRIED = replace(OPEN, rotation=(1, STORED | {"tried"})).born(0, 2)
TRIED = replace(TRIED, password=2, taken=2, good=frozenset({1, 2}))
DEAD = op("password rotate", 0, 9, 6, said="step dead comes after step tried (…), which is not done", done="dead")


def test_a_step_undone_by_a_password_is_accepted() -> None:
    stored = op("password set", 1, 8, number=3, password="p")
    assert explained(TRIED, None, DEAD, stored), Search(COMMANDS, [DEAD, stored], TRIED, None).report
    assert not explained(TRIED, None, DEAD), "nobody stored another password"
    assert not explained(TRIED, None, DEAD, replace(stored, start=10, end=11)), "it was stored later"
    done = replace(TRIED, rotation=(1, STORED | {"tried", "promoted"}))
    assert not explained(done, None, DEAD, stored), "a promotion is not undone"


@pytest.mark.parametrize(("right", "wrong"), [("tried", "promoted"), ("dead", "set"), ("which is not done", "later")])
def test_a_wrong_step_is_rejected(right: str, wrong: str) -> None:
    before = replace(TRIED, rotation=(1, STORED))
    assert explained(before, before, DEAD)
    assert not explained(before, before, replace(DEAD, said=DEAD.said.replace(right, wrong)))


def _words(model: Path) -> Iterator[str]:
    """Yield a pattern for each phrase that a model expects in an error of the product."""
    for node in ast.walk(tree(model)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "failed":
            for word in node.args[1:]:
                parts = word.values if isinstance(word, ast.JoinedStr) else [word]
                if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
                    yield "".join(
                        re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"\{[^{}]+\}" for p in parts
                    )


def test_models_expect_words_of_the_product() -> None:
    """An error that is written again must be written again here: `make chaos` is too late to find out."""
    models = sorted(Path(__file__).parent.glob("*_model.py"))
    expected = [pattern for model in models for pattern in _words(model)]
    product = "\n".join(file.read_text(encoding="utf-8") for file in MODULES)
    assert len(expected) > 30
    assert not [pattern for pattern in expected if not re.search(pattern, product)]


def test_misplaced_submission_is_rejected() -> None:
    before = OPEN.with_request(Request(2, "superseded")).with_request(Request(3))
    sent = op("csr submit", 1, 8, number=3, reference="mail-2")
    superseding = op("csr new", 0, 9, number=3, supersede=True)
    assert not explained(
        OPEN, before.with_request(Request(3, sent=frozenset({"mail-2"}))), replace(sent, number=2), superseding
    )


def test_report_names_what_is_unexplained() -> None:
    report = Search(COMMANDS, [op("csr cancel", 0, 9, 8, said="nobody knows")], OPEN, OPEN).report
    assert "csr cancel" in report
    assert "nobody knows" in report
