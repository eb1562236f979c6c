"""The page on using a bundle: every block of Python on it fetches the fleets, every `broker request` is typed."""

from __future__ import annotations

import asyncio
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from partner_standin import Standin

from broker.client import session
from broker.client.leased import Leased
from broker.model.waiting import Ended, Event
from tests.agent.test_holding import WANTED
from tests.cli.test_request import Shell, partner, shell, usable  # noqa: F401  # fixtures
from tests.client.test_connect import Leases
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of, publish
from tests.support.sources import ROOT

PAGE: Final = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standin, Path]]:
    root = tmp_path_factory.mktemp("published")
    with Standin(root / "partner", accounts={LOGIN: PASSWORD}) as standin:
        publish(root / "bundle", bundle_of(standin))
        yield standin, root / "bundle"


def run(block: str) -> None:
    """Run a block as a program would, inside a coroutine where it awaits."""
    names: dict[str, Any] = {}
    exec(f"async def main():\n{textwrap.indent(block, '    ')}", names)
    asyncio.run(names["main"]())


def test_there_is_a_block_for_each_library() -> None:
    assert [
        name
        for name in ("client.connect", "client.open", "httpx.open", "httpx.open_async", "aiohttp.open")
        if not any(name in block for block in BLOCKS)
    ] == []


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_example_of_the_page_fetches_fleets(
    published: tuple[Standin, Path], block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is one in memory: tests/e2e/test_sessions.py has a real one."""
    standin, root = published
    source = Leases(bundle=bundle_of(standin))
    monkeypatch.setattr(session, "leased", lambda *_: Leased(source, WANTED, None))
    standin.log.clear()
    run(block.replace('"DIR"', repr(str(root))))
    source.news.put(Ended(Event.TIMEOUT))
    seen = standin.log.entries()
    assert seen
    assert {entry.outcome for entry in seen} == {"ok"}


@pytest.mark.slow
def test_requests_of_the_page_are_typed(shell: Shell) -> None:  # noqa: F811
    fleet = shell.json("GET", "/fleets", "--all")[0]["id"]
    (shell.home / "monitor.json").write_text('{"label": "night"}')
    lines = re.findall(r"^broker request acme/reporting (.*)$", PAGE, re.MULTILINE)
    for line in lines:
        ended = shell.request(*shlex.split(line.replace("/ID/", f"/{fleet}/"), comments=True))
        assert ended.code == 0, f"{line}: {ended}"
    assert [entry.method for entry in shell.partner.log.entries()][-len(lines) :] == ["GET", "GET", "GET", "POST"]
