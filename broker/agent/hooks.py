"""Run what must hear of another generation, or of a failure, in a thread of its own: remembered over restarts."""

import os
import random
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from broker.agent.store import Store
from broker.agent.tables import BundleTable
from broker.errors import BrokerError, InputError, RefusedError
from broker.model.clock import Clock
from broker.telemetry import log

PUBLISHED: Final = "published"
FAILURE: Final = "failure"
_AGAIN: Final = (3.0, 10.0)  # seconds until a failed hook runs again; twice as long each time
_DOUBLED: Final = 5  # times at most
_ATTEMPTS: Final = 5  # of a hook on failure
_COMM: Final = 15  # bytes of a name that the kernel keeps


class Hooks:
    """The hooks of one bundle. Only the newest generation, or failure, is of interest."""

    def __init__(self, table: BundleTable, store: Store, clock: Clock) -> None:
        self._table, self._store, self._clock = table, store, clock
        self._wake, self._changing = threading.Event(), threading.Lock()
        self._stopped = False
        self._generation, self._reason, self._number = "", "", 0
        self.failures = 0  # in a row
        self._tries = 0  # of the hook for this failure
        self._thread = threading.Thread(target=self._run, name="hooks", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def published(self, directory: str, number: int) -> None:
        """The files of generation `number` are in `directory`."""
        with self._changing:
            self._generation, self._number = directory, number
        self._wake.set()

    def removed(self) -> None:
        """The files are gone: the programs that used them must hear of the next ones."""
        with self._changing:
            self._generation = ""
            self._store.note(hooked="")

    def failed(self, reason: str) -> None:
        """Something failed for `reason`, a word of docs/agent.md."""
        if reason != self._reason:
            self._reason, self._tries = reason, 0
        self._wake.set()

    def recovered(self) -> None:
        """Nothing fails any more: the next failure is another one."""
        with self._changing:
            self._reason = ""
            self._store.note(failed="")

    @property
    def settled(self) -> bool:
        """Whether the hook of the newest generation has succeeded."""
        return self._store.state.hooked == self._generation

    def once(self) -> None:
        """Run what is to run now, the hook for a failure also if the other one fails; raise what they raise."""
        generation, reason, state = self._generation, self._reason, self._store.state
        try:
            if generation and state.hooked != generation:
                self._published()
                self._note(hooked=generation)
        finally:
            if reason and state.failed != reason:
                self._on_failure(reason)

    def _note(self, hooked: str = "", failed: str = "") -> None:
        """Remember a hook that has run, unless the files have gone or come back meanwhile: then it runs again."""
        with self._changing:
            if hooked and hooked == self._generation:
                self._store.note(hooked=hooked)
            if failed and failed == self._reason:
                self._store.note(failed=failed)

    def stop(self) -> None:
        """End, after the hook that runs now."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._pause())
            self._wake.clear()
            try:
                if not self._stopped:
                    self.once()
                    self.failures = 0
            except BrokerError as error:
                self.failures += 1
                log.error("hook failed", bundle=self._table.name, reason=error.message, failures=self.failures)

    def _pause(self) -> float | None:
        if not self.failures:
            return None
        doubled: int = 2 ** min(self.failures - 1, _DOUBLED)
        return random.uniform(*_AGAIN) * doubled  # noqa: S311  # no secret

    def _published(self) -> None:
        hook = self._table.hook
        if hook.pid_file:
            _signal(hook.pid_file, hook.signal, hook.process)
        variables = self._variables(PUBLISHED)
        self._command(hook.command, variables)
        self._command(("systemctl", "reload", hook.systemd_reload) if hook.systemd_reload else (), variables)

    def _on_failure(self, reason: str) -> None:
        self._tries += 1
        try:
            self._command(self._table.hook.on_failure, self._variables(FAILURE, reason))
        except BrokerError:
            if self._tries >= _ATTEMPTS:
                self._note(failed=reason)
            raise
        self._note(failed=reason)

    def _command(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        if command:
            from broker import child  # loads subprocess, which most bundles do not need

            child.run(command, variables, self._table.hook.timeout.total_seconds(), "[bundles.hooks]")

    def _variables(self, event: str, reason: str = "") -> Mapping[str, str]:
        """Return the environment of a hook. Nothing in it is secret."""
        wanted = self._table.wanted
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "BROKER_EVENT": event,
            "BROKER_ACCOUNT": wanted.account,
            "BROKER_APPLICATION": wanted.application,
            "BROKER_GENERATION": str(self._number or ""),
            "BROKER_DIRECTORY": str(self._table.root / "current"),
            "BROKER_REASON": reason,
            "BROKER_AT": f"{self._clock():%FT%TZ}",
        }


def _signal(file: Path, number: int, name: str) -> None:
    """Send a signal to the process whose number is in `file`. A file that was left may name another program."""
    try:
        pid = _pid(file.read_text(encoding="ascii"))
        found = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
        if name and found != name[:_COMM]:
            raise RefusedError(f"{file} names the process {pid}, which is {found!r}", hint=f"does {name} run?")
        os.kill(pid, number)
    except ValueError:
        raise InputError(f"{file} holds no number of a process", hint="check pid_file in [bundles.hooks]") from None
    except OSError as error:
        reason = (error.strerror or "error").lower()
        message = f"{signal.Signals(number).name} was not sent by {file}: {reason}"
        raise RefusedError(message, hint="does the program run?") from None


def _pid(text: str) -> int:
    """Return the number of a process; raise `ValueError` for one that would signal many, or init."""
    pid = int(text.strip())
    if pid <= 1:
        raise ValueError
    return pid
