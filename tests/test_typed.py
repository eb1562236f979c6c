"""Types that several threads use first at the same time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.sources import ROOT

THREADS = """
import sys, threading
import msgspec
from broker.model.account import Account
from broker.model.holdings import ConsumerRecord
from broker.typed import from_json, typed

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def first_use(kind, makes):
    together.wait()
    try:
        makes(kind)
    except msgspec.ValidationError:
        pass

MAKES = (
    lambda kind: typed({"name": "x", "entity": "e", "holdings": []}, kind),
    lambda kind: from_json(b'{"name": "x", "entity": "e", "holdings": []}', kind),
)
uses = [(kind, makes) for kind in (Account, ConsumerRecord) for makes in MAKES] * 2
threads = [threading.Thread(target=first_use, args=each) for each in uses]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.slow
def test_threads_may_learn_a_type_together() -> None:
    """With msgspec's own functions half of such processes die of a segmentation fault."""
    running = [subprocess.Popen([sys.executable, "-c", THREADS], cwd=ROOT) for _ in range(6)]
    assert [process.wait() for process in running] == [0] * len(running)
