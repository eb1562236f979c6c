"""Fixtures, profiles and skips for all tests."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from importlib.util import find_spec
from typing import Final

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.support.leftovers",
    "tests.support.counts",
    "tests.support.forked",
    "tests.support.mail_servers",
    "tests.support.vault",
    "tests.support.system",
    "tests.support.used_by_others",
]

PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # servers are there, and not on an ordinary user's PATH

# In CI the examples are the same every time; HYPOTHESIS_PROFILE=long looks further, and prints what replays a failure.
settings.register_profile("quick", deadline=None, max_examples=100, stateful_step_count=30)
settings.register_profile("ci", settings.get_profile("quick"), derandomize=True)
settings.register_profile("long", deadline=None, max_examples=2000, stateful_step_count=80, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "quick"))


def hear_signals() -> None:
    """Handle the signals that our starter had ignored, so that the commands of tests start with none ignored.

    A shell ignores SIGINT and SIGQUIT in what it starts with `&`, and `nohup` SIGHUP. Ours does nothing for a hang-up
    then: the run survives it, and a program it starts has the default action.
    """
    ignored = {n for n in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN}
    if signal.SIGINT in ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.SIGQUIT in ignored:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.SIGHUP in ignored:
        signal.signal(signal.SIGHUP, lambda *_: None)


hear_signals()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector away from ten thousand tests, which stay to the end: it took half of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that may take longest, so that no process is left alone with one at the end."""
    seconds: Counter[str] = Counter()
    for item in items:
        limit = item.get_closest_marker("timeout")
        seconds[_scope(item)] += limit.args[0] if limit else 10 if item.get_closest_marker("slow") else 0
    items.sort(key=lambda item: -seconds[_scope(item)])


def _scope(item: pytest.Item) -> str:
    """Return what one process runs whole: a file or a class."""
    return item.nodeid.rpartition("::")[0]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that lacks a program, an extra or a right on a person's machine; in CI it fails for want of it."""
    missing = [name for mark in item.iter_markers("peer") for name in mark.args if not shutil.which(name, path=PATH)]
    if missing:
        _stop(f"needs {', '.join(missing)}: sh .ci/peers installs it")
    lacking = [name for mark in item.iter_markers("extra") for name in mark.args if find_spec(name) is None]
    if lacking:
        _stop(f"needs {', '.join(lacking)}: requirements/install {' '.join(lacking)}")
    denied = [name for mark in item.iter_markers("rights") for name in mark.args if not RIGHTS[name]()]
    if denied:
        _stop(f"needs the right to {', '.join(denied)}: run it as root with that right")


@functools.cache
def _may_mount() -> bool:
    with tempfile.TemporaryDirectory() as directory:
        if subprocess.run(["mount", "-t", "tmpfs", "none", directory], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", directory], check=True)
        return True


def _is_root() -> bool:
    return os.geteuid() == 0


RIGHTS: Final[dict[str, Callable[[], bool]]] = {"mount": _may_mount, "chown": _is_root, "setuid": _is_root}


def _stop(why: str) -> None:
    (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
