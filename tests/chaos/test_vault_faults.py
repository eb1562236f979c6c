"""Every command, and a vault that misbehaves at one of its requests: it gets over it, or tells, and leaves no harm.

A slice of the matrix; `make chaos` goes through the whole. A cell that fails is printed as it is named:
`CHAOS_CELL='csr new | LOST | request 7' make chaos ARGS='-k one_cell'` tries it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from tests.chaos.fault_cells import COMMANDS, Bench, Cell, Tried, all_cells, benched, lasting_cells, some_cells
from tests.support.counts import TALLY
from tests.support.depth import sampled
from tests.support.proxy import Cue, Fault
from tests.support.saved_states import ACCOUNT

SEED: Final = int(os.environ.get("CHAOS_SEED") or 4)
DEPTH: Final = int(os.environ.get("CHAOS_DEPTH") or 3)  # requests for each fault, in the long form; 0: every one
SHARE: Final = 9  # of the faults, for each command of the slice
ENDED_BY_FORCE: Final = ("rotation promote", "csr new", "bundle get")


@pytest.fixture(scope="module")
def bench(vault_server: tuple[Embedded, Connection]) -> Iterator[Bench]:
    """A saved with a misbehaving vault, for all cells of this module."""
    with benched(vault_server) as made:
        yield made


def assert_right(tried: Iterable[Tried]) -> list[Tried]:
    """Fail with all that went wrong, each as a cell that can be tried again."""
    ended = list(tried)
    TALLY["fault cells"] += len(ended)
    wrong = [str(cell) for cell in ended if cell.wrong]
    assert not wrong, f"CHAOS_SEED={SEED}\n" + "\n".join(wrong)
    return ended


@pytest.mark.slow
@pytest.mark.parametrize("command", sampled(COMMANDS, every=4))
def test_vault_fault_leaves_nothing_partial(bench: Bench, command: str) -> None:
    assert_right(bench.tried(cell) for cell in some_cells(bench, command, seed=SEED, share=SHARE))


@pytest.mark.slow
@pytest.mark.parametrize("command", sampled(("vault enrol", "vault enrol --remove", "vault setup (whole)"), every=3))
def test_a_write_that_was_not_done_is_noticed(bench: Bench, command: str) -> None:
    """What an administrator sets up is read back: an empty success may come from a proxy."""
    writes = [
        number
        for number, request in enumerate(bench.requests(command), 1)
        if request.startswith(("POST", "DELETE")) and not request.endswith(("capabilities-self", "login"))
    ]
    assert_right(bench.tried(Cell(command, Fault.EMPTY, nth)) for nth in writes[:: len(writes) // 2])


@pytest.mark.slow
@pytest.mark.parametrize("command", sampled(ENDED_BY_FORCE, every=3))
def test_lost_vault_is_reported_in_time(bench: Bench, command: str) -> None:
    assert_right(bench.tried(cell) for cell in lasting_cells(bench, command, seed=SEED))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault.LOST, Fault.REVOKED, Fault.SEALED])
def test_processes_end_like_in_process_calls(bench: Bench, fault: Fault) -> None:
    saved, system = bench.saved, bench.saved.system
    saved.put("added")
    bench.proxy.plan(Cue(fault, method="POST", path=f"/v1/{system.vault.settings.mount}/data/.*", nth=2))
    system.changes = {"VAULT_ADDR": bench.proxy.address}
    try:
        ended = system.run("--timeout", "3s", "csr", "new", ACCOUNT)
    finally:
        system.changes = {}
    assert ended.code == 0, ended.err
    assert not list(saved.faults())
    account = saved.account()
    assert account is not None
    assert account.open_request is not None
    assert ended.out == account.open_request.csr


@pytest.mark.slow
def test_the_bench_notices_an_orphan(bench: Bench) -> None:
    """A control: what no account refers to is found."""
    bench.saved.put("requested")
    bench.saved.system.vault.admin.create(f"keys/{ACCOUNT}/7", {"pkcs8": "", "spki": ""})
    assert any("kv:7" in fault for fault in bench.saved.faults())


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_fault_at_every_request(bench: Bench, command: str) -> None:
    """Or at as many as CHAOS_DEPTH says. With CHAOS_RESULTS=DIR, the result of each cell is kept there, for
    `tests.chaos.report`.
    """
    chosen = all_cells(bench, command, seed=SEED, depth=DEPTH)
    lasting = [cell for seed in (SEED, SEED + 1) for cell in lasting_cells(bench, command, seed=seed)]
    tried = [bench.tried(cell) for cell in (*chosen, *lasting)]
    whole = len(list(all_cells(bench, command, seed=SEED))) + len(lasting)
    TALLY["fault cells there are"] += whole
    _keep(command, tried, whole)
    assert_right(tried)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.skipif(not os.environ.get("CHAOS_CELL"), reason="CHAOS_CELL names none")
def test_one_cell(bench: Bench) -> None:
    command, fault, request = os.environ["CHAOS_CELL"].split(" | ")
    nth = request.removeprefix("request ").removesuffix(" and all after it")
    assert_right([bench.tried(Cell(command, Fault[fault], int(nth), lasting=request.endswith("it")))])


def _keep(command: str, tried: Iterable[Tried], whole: int) -> None:
    if folder := os.environ.get("CHAOS_RESULTS"):
        rows = [
            {"command": command, "fault": t.cell.fault.value, "lasting": t.cell.lasting, "code": t.code} for t in tried
        ]
        kept = {"seed": SEED, "whole": whole, "rows": rows}
        (Path(folder) / f"faults-{command.replace(' ', '-')}.json").write_text(json.dumps(kept))
