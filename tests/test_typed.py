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
from broker.typed import typed

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)

def first_use(kind):
    together.wait()
    try:
        typed({"name": "x", "entity": "e", "holdings": []}, kind)
    except msgspec.ValidationError:
        pass

threads = [threading.Thread(target=first_use, args=((Account, ConsumerRecord)[n % 2],)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.mark.slow
def test_threads_may_learn_a_type_together() -> None:
    """With `msgspec.convert` half of such processes die of a segmentation fault."""
    running = [subprocess.Popen([sys.executable, "-c", THREADS], cwd=ROOT) for _ in range(6)]
    assert [process.wait() for process in running] == [0] * len(running)
