"""Forks a process for each `broker` command that it is ordered to run, from one that has imported everything.

A command then starts in milliseconds, where a new interpreter takes half a second, and is a separate process: it
has its own sessions, tokens and files, and dies as one. See `tests.support.forked` for the other side.

An order is a JSON object: number, folder (with `stdin`; `stdout` and `stderr` are written there), cwd, environment,
arguments. `disturbance`, "module:function", names what else happens to the command: the function is called in its
process with the order and `tell`, and returns the `Wiring`.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

Order = Mapping[str, Any]
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
LONGEST: Final = 1 << 20  # of an order, in bytes


def main() -> None:
    """Obey until the other end of the socket closes, whose descriptor is the argument."""
    import broker

    for module in pkgutil.walk_packages(broker.__path__, "broker."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    sys.modules["broker.compose.graph"].PAUSE = 0.0  # type: ignore[attr-defined]  # no service runs beside these commands
    signal.signal(signal.SIGINT, signal.default_int_handler)
    channel = socket.socket(fileno=int(sys.argv[1]))
    running: dict[int, tuple[int, int]] = {}  # by the descriptor of the process: its id, and the order's number
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    pid, number = running.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    tell(channel, number, "ended", code=code)
                    continue
                text = channel.recv(LONGEST)
                if not text:
                    channel.close()
                    return
                order = json.loads(text)
                pid = os.fork()
                if not pid:
                    _become(channel, order)
                descriptor = os.pidfd_open(pid)
                running[descriptor] = pid, order["number"]
                selector.register(descriptor, selectors.EVENT_READ)


def tell(channel: socket.socket, number: int, event: str, **facts: object) -> None:
    """Report an event of order `number`, with the time on the clock that all processes share."""
    channel.send(json.dumps({"number": number, "event": event, "at": time.monotonic_ns(), **facts}).encode())


def _become(channel: socket.socket, order: Order) -> None:
    """Become the command of `order`; never return."""
    code = 70
    try:
        code = _run(channel, order)
    except BaseException as error:  # noqa: BLE001  # reported to the test, which fails for it
        os.write(2, f"\nuncaught: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _run(channel: socket.socket, order: Order) -> int:
    from broker.cli import main as commands

    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    folder = Path(order["folder"])
    for number, (name, flags) in enumerate((("stdin", os.O_RDONLY), ("stdout", NEW), ("stderr", NEW))):
        descriptor = os.open(folder / name, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    report = partial(tell, channel, order["number"])
    module, _, function = order["disturbance"].partition(":")
    wiring = getattr(importlib.import_module(module), function)(order, report) if module else None
    report("began", pid=os.getpid())
    code = commands.run(order["arguments"], wiring=wiring)
    sys.stdout.flush()
    sys.stderr.flush()
    report("over")
    return code


if __name__ == "__main__":
    main()
