"""`make cluster`: two brokers on three OpenBao nodes. The leader is killed while an application fetches bundles."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import click

from broker.errors import BrokerError
from broker.model.role import Role
from broker.signals import held_back, raised
from broker_demo import raft, steps
from broker_demo.runner import Demo, end

_ASKED: Final = json.dumps({"account": "acme", "application": "reporting", "ttl": "15m"})
_ENOUGH: Final = 20  # bundles of each broker, before and after the leader's death
_TIMEOUT: Final = 30.0  # seconds
_PAUSE: Final = 0.02
_CREATED: Final = 201
_BUSY: Final = 503


class _Demo(Demo):
    quiet = False  # for what `broker demo` shows

    def echo(self, line: str) -> None:
        """Print a line."""
        if not self.quiet:
            super().echo(line)

    def title(self, text: str) -> None:
        """Begin a step."""
        if not self.quiet:
            super().title(text)


@click.command()
@click.option("--keep", is_flag=True, help="Run on until Ctrl-C.")
def command(keep: bool) -> None:
    """Show that bundles are served through the death of Vault's leader."""
    try:
        with raised(), ExitStack() as stack:
            demo = _Demo()
            stack.callback(demo.close)
            _play(demo, stack, keep=keep)
    except (BrokerError, TimeoutError) as error:
        hint = f"\n  hint: {error.hint}" if isinstance(error, BrokerError) and error.hint else ""
        raise click.ClickException(f"{error}{hint}") from None
    click.echo("\ndone: processes ended, files removed")


def _play(demo: _Demo, stack: ExitStack, *, keep: bool) -> None:
    demo.title("Three OpenBao nodes with one store (raft)")
    cluster = stack.enter_context(raft.cluster(demo.directory, _free_ports(2 * raft.NODES)))
    leader, behind = cluster.leader, cluster.standbys
    for node in cluster.nodes:
        demo.say(f"{node.address}  {'leader' if node is leader else 'standby'}")
    _account(demo, cluster, behind[0])
    stack.callback(_end_all, demo)  # before the nodes end: brokers give their tokens back
    demo.title("Two brokers")
    brokers = [_broker(demo, number, node) for number, node in enumerate(behind, 1)]
    demo.say("Each broker has another node's address. Neither holds state: the nodes do.")
    token = (demo.directory / "reporting.token").read_text().strip()
    with _fetching(brokers, token) as application:
        demo.title("An application fetches bundles, from one broker and the other in turn")
        application.wait_for(_ENOUGH * len(brokers))
        demo.title("The leader is killed")
        demo.show("kill", "-9", str(leader.process.pid if leader.process else ""))
        began = time.monotonic()
        leader.kill()
        demo.say(f"{cluster.leader.address} leads after {time.monotonic() - began:.1f} s")
        application.wait_for(_ENOUGH * len(brokers), since=time.monotonic())
    demo.title("What the application saw")
    demo.table(["answers", "number", "slowest"], application.summary(began))
    demo.title("Every bundle is in the evidence; the killed node joins again")
    cluster.heal()
    demo.run("broker", "evidence", "verify", "--all")
    if keep:
        _stay(demo, brokers)


def _account(demo: _Demo, cluster: raft.Cluster, node: raft.Node) -> None:
    """Set the cluster up, bring in an account, and write the application's token to reporting.token."""
    demo.title("An account with a first generation, and a token for its application (shown by make demo)")
    _configure(demo, "broker.toml", node)
    (demo.directory / "password.txt").write_text(steps.PASSWORD)
    (demo.directory / "password.txt").chmod(0o600)
    (demo.directory / "root.token").write_text(cluster.token.reveal())
    (demo.directory / "root.token").chmod(0o600)
    demo.quiet = True
    demo.shell("VAULT_TOKEN=$(cat root.token) broker vault setup --login-dir roles")
    steps.first_generation(demo)
    enrolment = "broker vault enrol reporting --right acme/reporting --token-file reporting.token"
    demo.shell(f"VAULT_TOKEN=$(cat root.token) {enrolment}")
    demo.quiet = False


def _broker(demo: _Demo, number: int, node: raft.Node) -> str:
    """Start a broker on `node`; return its address."""
    address = f"127.0.0.1:{_free_ports(1)[0]}"
    _configure(demo, f"broker-{number}.toml", node)
    process = demo.start("broker", "serve", "--config", f"broker-{number}.toml", "--listen", address, "--health", "")
    demo.wait(lambda: "listening on" in demo.said_by(process), process, address)
    return f"http://{address}"


def _configure(demo: _Demo, name: str, node: raft.Node) -> None:
    roles = (
        f'[roles.{role.value}]\nrole_id_file = "roles/{role.value}/role_id"\n'
        f'secret_id_file = "roles/{role.value}/secret_id"\n'
        for role in Role
    )
    text = f'version = 1\n[vault]\naddress = "{node.address}"\n{"".join(roles)}'
    (demo.directory / name).write_text(text)


def _end_all(demo: _Demo) -> None:
    for process in reversed(demo.left):
        end(process)


@dataclass
class _Application:
    """Fetches bundles from each of `brokers` in turn, until it is asked to end."""

    brokers: Sequence[str]
    token: str
    ended: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[float, float, int]] = field(default_factory=list)  # begin, seconds, status; 0 for no answer

    def fetch(self) -> None:
        """Fetch until the end."""
        for broker in itertools.cycle(self.brokers):
            if self.ended.wait(_PAUSE):
                return
            began = time.monotonic()
            status = self._status(broker)
            self.seen.append((began, time.monotonic() - began, status))

    def _status(self, broker: str) -> int:
        connection = http.client.HTTPConnection(urlsplit(broker).netloc, timeout=_TIMEOUT)
        try:
            headers = {"X-Vault-Token": self.token, "Content-Type": "application/json"}
            connection.request("POST", "/v1/bundles", _ASKED, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return 0
        else:
            return answer.status
        finally:
            connection.close()

    def wait_for(self, count: int, since: float = 0.0) -> None:
        """Wait for `count` bundles that were asked for at the time `since` or later."""
        raft.awaited(lambda: len([s for s in self.seen if s[0] >= since and s[2] == _CREATED]) >= count, "bundles")

    def summary(self, killed: float) -> list[tuple[str, int, str]]:
        """Return rows of a table: the answers before and after `killed`, and those that failed."""
        before = [s for s in self.seen if s[0] + s[1] < killed]
        after = [s for s in self.seen if s[0] + s[1] >= killed]
        rows = (
            ("bundles before", [s for s in before if s[2] == _CREATED]),
            ("bundles after", [s for s in after if s[2] == _CREATED]),
            ("503, to be repeated", [s for s in self.seen if s[2] == _BUSY]),
            ("failed", [s for s in self.seen if s[2] not in (_CREATED, _BUSY)]),
        )
        return [(name, len(found), f"{max(s[1] for s in found):.2f} s" if found else "") for name, found in rows]


@contextmanager
def _fetching(brokers: Sequence[str], token: str) -> Iterator[_Application]:
    application = _Application(brokers, token)
    thread = threading.Thread(target=application.fetch)
    thread.start()
    try:
        yield application
    finally:
        application.ended.set()
        thread.join()


def _stay(demo: _Demo, brokers: Sequence[str]) -> None:
    demo.title("It stays until Ctrl-C. Ask it yourself, and kill nodes and brokers")
    for broker in brokers:
        token = f"$(cat {demo.directory}/reporting.token)"
        click.echo(f"  curl -sS --noproxy '*' {broker}/v1/bundles -H \"X-Vault-Token: {token}\" -d '{_ASKED}'")
    with held_back() as asking:
        signal.sigwait(asking)


def _free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for made in sockets:
            made.bind(("127.0.0.1", 0))
        return [made.getsockname()[1] for made in sockets]


if __name__ == "__main__":
    command()
