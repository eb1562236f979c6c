"""Run sweeps at their times until a signal asks to end, with health and numbers on an address."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from broker.compose.sweeping import Sweeping
from broker.service.health import Watched, health
from broker.service.limits import Guard
from broker.service.listeners import Address, Listener, Ready, Report, serve
from broker.systemd import State
from broker.telemetry import log

_WATCHERS: Final = 64  # connections
_JITTER: Final = 0.1  # of the interval, so that two schedulers do not meet each time
_LOOK: Final = 5.0  # seconds between looks at the clock
_JUMP: Final = 60.0  # seconds between the clock and this machine's uptime: it was set, or the machine slept


def run(sweeping: Sweeping, interval: timedelta, at: str, ready: Ready, report: Report) -> None:
    """Sweep now and each `interval` until a signal asks to end; the account that is looked at is finished first."""
    address = Address.parse(at, behind_proxy=True)  # nothing there is secret
    sweeping.sweeps.interval, sweeping.sweeps.ending = interval, sweeping.ended.is_set
    watched = Watched(sweeping.check, sweeping.check_account, sweeping.metrics)
    scheduler = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(1)})
    seconds = interval.total_seconds()
    job = scheduler.add_job(
        sweeping.sweep,
        "interval",
        seconds=seconds,
        jitter=int(seconds * _JITTER),
        next_run_time=datetime.now(UTC),
        misfire_grace_time=None,
        coalesce=True,
        max_instances=1,
    )

    def reported(state: State) -> None:
        report(state)
        if state is State.STOPPING:
            sweeping.ended.set()

    watch = threading.Thread(
        target=_follow_jumps, args=(sweeping.ended, lambda: job.modify(next_run_time=datetime.now(UTC))), daemon=True
    )
    scheduler.start()
    watch.start()
    try:
        listener = Listener(health(watched), address, guard=Guard(_WATCHERS, address.names))
        serve([listener], ready=ready, report=reported)
    finally:
        sweeping.ended.set()
        scheduler.shutdown(wait=True)


def _follow_jumps(
    ended: threading.Event, jumped: Callable[[], object], ahead: Callable[[], float] | None = None
) -> None:
    """Call `jumped` when the clock was set, or the machine slept: APScheduler would wait by the old time."""
    ahead = ahead or (lambda: time.time() - time.monotonic())
    before = ahead()
    while not ended.wait(_LOOK):
        if abs(ahead() - before) > _JUMP:
            before = ahead()
            log.info("the clock jumped: sweeping now")
            jumped()
