"""`broker agent`: keep the files of several bundles current."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any, Final

import click

from broker.agent.binding import bound_at, bound_to
from broker.agent.following import Follower
from broker.agent.ports import Output
from broker.agent.running import Agent, once
from broker.agent.tables import BundleTable, bundle_tables
from broker.cli.broker_service import required_service
from broker.cli.exits import CODES
from broker.cli.output import note, wrote_json
from broker.cli.start import Start
from broker.config import Config
from broker.delivery.directory import CURRENT
from broker.delivery.root import is_memory
from broker.errors import InputError
from broker.fetching.service import Service
from broker.model.clock import Clock
from broker.signals import held_back
from broker.systemd import report
from broker.telemetry import log

_READ_ONCE: Final = ("agent.", "service.")


@click.command("agent", epilog="Example: broker agent   or, from cron: broker agent --once")
@click.option("--once", "is_once", is_flag=True, help="Write the files, run hooks and exit. The leases go on.")
@click.option(
    "--until-exit-of", "pid", type=click.IntRange(2), metavar="PID", help="End when this process has ended, for jobs."
)
@click.pass_obj
def command(start: Start, /, is_once: bool, pid: int | None) -> int:
    """Keep the files of all [[bundles]] of broker.toml current, run their hooks, and remove them at the end.

    SIGTERM ends it: it revokes its leases and removes the files. SIGHUP reads [[bundles]] again. Health is at
    agent.listen and agent.socket. After a kill, the next process goes on with the files and leases that it finds.
    """
    start.suggest("log.level", "info")
    if not is_once:
        start.suggest("log.format", "json")
    tables = partial(_tables, start, start.config)
    made = partial(_follower, start, required_service(start, log.info))
    if not tables():
        raise InputError(
            "the configuration has no bundles", hint='[[bundles]] with application = "ACCOUNT/APPLICATION"'
        )
    if is_once:
        return _once([made(table) for table in tables()])
    agent = Agent(made, tables, lambda state: report(state, os.environ.get("NOTIFY_SOCKET", "")))
    with held_back() as signals:  # before any thread starts
        if pid:
            agent.quit_after(pid)
        with _listening(start.config["agent.listen"], start.config["agent.socket"], agent) as listen:
            agent.run(signals, _watchdog(), listen)
    return 0


@contextmanager
def _listening(address: str, path: str, agent: Agent) -> Iterator[Callable[[], None]]:
    """Bind the address and the socket, if they are set; yield what answers there for health."""
    with ExitStack() as bound:
        sockets: list[tuple[socket, Callable[[], None] | None]] = []
        if address:
            sockets.append((bound.enter_context(bound_to(address)), None))
        if path:
            sockets.append((bound.enter_context(bound_at(Path(path))), agent.quit))
            bound.callback(Path(path).unlink, missing_ok=True)

        def listen() -> None:
            from broker.agent.listening import (
                Listener,  # loads a server of HTTP, which the first files need not wait for
            )

            for one, leave in sockets:
                listener = Listener(one, agent.health, leave)
                bound.callback(listener.shutdown)
                listener.start()

        yield listen


def _tables(start: Start, first: Config) -> list[BundleTable]:
    """Return the bundles of the configuration as it is now; report other settings that are no longer the `first`."""
    found = start.read_again()
    changed = [name for name in found.values if name.startswith(_READ_ONCE) and found[name] != first[name]]
    if changed:
        log.error("these settings are read at a start only: restart the agent", settings=", ".join(changed))
    return tables_of(found)


def tables_of(config: Config) -> list[BundleTable]:
    """Return the bundles of a configuration; raise `InputError`."""
    default = config["bundle.directory"]
    return bundle_tables(config.bundles, _base(config), Path(default).absolute() if default else None)


def _base(config: Config) -> Path:
    """Return the directory that relative paths of the bundles begin at."""
    return config.file.parent.absolute() if config.file else Path.cwd()


def _follower(start: Start, service: Service, table: BundleTable) -> Follower:
    if not is_memory(table.root):
        log.error("files are on a disk, where removed ones can be recovered", directory=str(table.root))
    return Follower(table, service, outputs_of(start.config, table, start.clock), start.clock)


def outputs_of(config: Config, table: BundleTable, clock: Clock) -> list[Output]:
    """Return what a bundle is written to beside files; raise `InputError`."""
    if table.kv is None:
        return []
    from broker.compose.kv import kv_output  # loads a Vault library, which no other bundle needs

    return [kv_output(table.kv, table.name, table.root, _base(config), clock)]


def _once(followers: Sequence[Follower]) -> int:
    """Write all bundles; show what there is, and raise the first error."""
    errors = once(followers)
    rows: list[dict[str, Any]] = []
    for one in followers:
        granted = one.granted
        if granted:
            shown = {"generation": granted.lease.generation, "expiration": granted.lease.expires}
            rows.append({"bundle": one.table.name, "directory": str(one.table.root / CURRENT), **shown})
    for error in errors[1:] if errors and not rows else errors:
        note(f"error: {error.message}" + (f"; {error.hint}" if error.hint else ""))
    if errors and not rows:
        raise errors[0]
    if not wrote_json(rows):
        for row in rows:
            note(f"generation {row['generation']} of {row['bundle']} in {row['directory']}")
    return max(CODES[error.kind] for error in errors) if errors else 0


def _watchdog() -> float:
    """Return the seconds in which the service manager wants a sign of life, 0 if it wants none."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    is_ours = not pid or pid == str(os.getpid())
    return int(text) / 1_000_000 if text.isdecimal() and is_ours else 0
