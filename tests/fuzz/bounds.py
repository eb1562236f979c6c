"""Readers of foreign bytes, in a process of their own: they must not take long or much, write, or open a connection.

Python's audit events tell what they did. A hook for them cannot be removed, and while one is there, CPython 3.11 may
kill a thread that begins as another one does, under coverage ("Cannot install a trace function while another trace
function is being installed"). So it stays out of the tests' processes.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final

from broker.errors import BrokerError
from broker.model.secret import Secret
from broker.partners import document
from broker.pki import certificates, csr
from broker.pki.gathered import Piece, gather
from broker.pki.reply import read_reply

__all__ = ["PROFILE", "READERS", "Read", "readers_apart"]

SECONDS: Final = 4.0  # of CPU, for one file on a busy machine; most take a hundredth of a second
MEGABYTES: Final = 200
READERS: Final[dict[str, Callable[[bytes], object]]] = {
    "reply": lambda data: [f"{f.message} {f.hint}" for f in read_reply(data, "\x1b[2J\u202e").findings],
    "material": lambda data: [f.message for f in gather([Piece("its.key", data)], {}, lambda _: Secret("x")).findings],
    "csr": csr.parse,
    "certificates": lambda data: [certificates.describe(c) for c in certificates.load(data)],
}
Read = Callable[[str, bytes], str]
PROFILE: Final = "profile"
_ALL: Final[dict[str, Callable[[bytes], object]]] = {
    **READERS,
    PROFILE: lambda data: document.parse(data.decode(), "its.toml"),
}
_seen: list[str] = []


@contextmanager
def readers_apart(warned: str = "error") -> Iterator[Read]:
    """Yield a function that reads bytes with one of `READERS` or as a PROFILE, and returns its findings or its error.

    It fails if the reader breaks a bound. Warnings are treated as `warned` says.
    """
    apart = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, apart, _watch, (warned,)) as pool:

        def read(name: str, data: bytes) -> str:
            said, seconds, megabytes, seen = pool.submit(_read, name, data).result()
            assert seconds < SECONDS, (name, seconds)
            assert megabytes < MEGABYTES, (name, megabytes)
            assert seen == [], (name, seen)
            return said

        yield read


def _watch(warned: str) -> None:
    warnings.simplefilter(warned)  # type: ignore[arg-type]
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        _seen.append(f"wrote {arguments[0]}")
    elif event.startswith(("socket.", "subprocess.", "os.mkdir", "os.rename", "os.remove", "os.symlink", "shutil.")):
        _seen.append(event)


def _read(name: str, data: bytes) -> tuple[str, float, float, list[str]]:
    """Return what a reader says, the seconds of CPU and megabytes that it took, and what it should not have done."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    _seen.clear()
    try:
        said = repr(_ALL[name](data))
    except BrokerError as error:
        said = f"{error.message} {error.hint}"
    took = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return said, time.process_time() - began, took, list(_seen)
