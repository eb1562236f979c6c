"""The page on using a bundle: every block of Python on it fetches the fleets."""

from __future__ import annotations

import asyncio
import re
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
from tests.client.test_connect import Leases
from tests.support.credential_sets import LOGIN, PASSWORD, bundle_of, publish
from tests.support.sources import ROOT

BLOCKS: Final = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs" / "clients.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standin, Path]]:
    root = tmp_path_factory.mktemp("published")
    with Standin(root / "partner", accounts={LOGIN: PASSWORD}) as partner:
        publish(root / "bundle", bundle_of(partner))
        yield partner, root / "bundle"


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
    partner, root = published
    source = Leases(bundle=bundle_of(partner))
    monkeypatch.setattr(session, "leased", lambda *_: Leased(source, WANTED, None))
    partner.log.clear()
    run(block.replace('"DIR"', repr(str(root))))
    source.news.put(Ended(Event.TIMEOUT))
    seen = partner.log.entries()
    assert seen
    assert {entry.outcome for entry in seen} == {"ok"}
