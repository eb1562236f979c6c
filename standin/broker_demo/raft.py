"""Three OpenBao nodes on loopback that keep one store by raft, to be killed, paused and cut off.

Each seals itself with the same static key, as the embedded server does, so a node that is started again joins by
itself. The audit device is in every node's configuration, byte for byte the same: else a new leader never becomes
active.
"""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from broker.embedded.server import find_binary
from broker.model.secret import Secret
from broker_demo.runner import end_with_parent

T = TypeVar("T")
NODES: Final = 3
_PATIENCE: Final = 60.0  # seconds for a cluster to find itself
_TICK: Final = 0.05


@dataclass
class Node:
    """One server. A paused one keeps its connections, and does not answer."""

    address: str
    config: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it ends with this process."""
        with self.config.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [find_binary(), "server", f"-config={self.config}"],
                stdout=log,
                stderr=log,
                env={},
                start_new_session=True,  # Ctrl-C reaches us only
                preexec_fn=end_with_parent,  # noqa: PLW1509  # started by the main thread
            )

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def pause(self) -> None:
        """Stop it where it is."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def ask(
        self, method: str, path: str, body: object = None, *, token: str = "", timeout: float = 2.0
    ) -> tuple[int, Any]:
        """Return status and JSON of an answer, unparsed; raise `OSError` without an answer."""
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=timeout)
        try:
            sent = json.dumps(body) if body is not None else None
            connection.request(method, f"/v1/{path}", sent, {"X-Vault-Token": token} if token else {})
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None
        except http.client.HTTPException as error:
            raise ConnectionError(type(error).__name__) from None
        finally:
            connection.close()

    @property
    def leads(self) -> bool:
        """Return whether it is the active node, as it sees itself, and serves."""
        return self._health() == http.HTTPStatus.OK

    @property
    def stands_by(self) -> bool:
        """Return whether it is a standby, as it sees itself."""
        return self._health() == http.HTTPStatus.TOO_MANY_REQUESTS  # what Vault says for a standby

    def _health(self) -> int:
        try:
            return self.ask("GET", "sys/health")[0]
        except (OSError, ValueError):
            return 0

    def _signal(self, number: signal.Signals) -> None:
        if self.process:
            self.process.send_signal(number)


@dataclass
class Cluster:
    """The nodes, and the token that may do everything."""

    nodes: list[Node]
    token: Secret[str] = field(default_factory=lambda: Secret(""))

    @property
    def leader(self) -> Node:
        """The active node; wait until there is one, and no other still takes itself for it."""
        return awaited(self._one_that_leads, "a leader")

    @property
    def standbys(self) -> list[Node]:
        """The others, once they stand by."""
        return awaited(self._those_that_stand_by, "two standbys and a leader")

    def heal(self) -> None:
        """Start what was killed, wake what was paused, and wait until all three are one cluster."""
        for node in self.nodes:
            node.resume()
            if node.process is None:
                node.start()
        awaited(self._those_that_stand_by, "two standbys and a leader")
        awaited(self._all_vote, "the vote of all")

    def soon_vote(self) -> None:
        """Let a node that joined vote immediately; by default it waits ten seconds."""
        path = "sys/storage/raft/autopilot/configuration"
        body = {"server_stabilization_time": "250ms"}
        status, _ = self.leader.ask("POST", path, body, token=self.token.reveal())
        assert status == http.HTTPStatus.NO_CONTENT, status

    def _one_that_leads(self) -> Node | None:
        leading = [node for node in self.nodes if node.leads]
        return leading[0] if len(leading) == 1 else None

    def _those_that_stand_by(self) -> list[Node] | None:
        standing_by = [node for node in self.nodes if node.stands_by]
        return standing_by if len(standing_by) == NODES - 1 and self._one_that_leads() else None

    def _all_vote(self) -> bool:
        status, answer = self.leader.ask("GET", "sys/storage/raft/configuration", token=self.token.reveal())
        servers = answer["data"]["config"]["servers"] if status == http.HTTPStatus.OK else ()
        return len(servers) == NODES and all(server["voter"] for server in servers)

    def end(self) -> None:
        """Kill all nodes."""
        for node in self.nodes:
            node.resume()
            node.kill()


def awaited(found: Callable[[], T | None], what: str) -> T:
    """Return what `found` finds as soon as it is something."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if it := found():
            return it
        time.sleep(_TICK)
    raise TimeoutError(f"{what} did not come in {_PATIENCE:.0f} s")


@contextmanager
def cluster(folder: Path, ports: Sequence[int]) -> Iterator[Cluster]:
    """Yield a cluster of three that is initialised, unsealed and has a leader. Each node needs two of `ports`."""
    nodes = _nodes(folder, ports)
    made = Cluster(nodes)
    try:
        made.token = Secret(_initialized(nodes[0]))
        made.soon_vote()
        made.heal()
        yield made
    finally:
        made.end()


@contextmanager
def single(folder: Path, ports: Sequence[int]) -> Iterator[tuple[Node, Secret[str]]]:
    """Yield a cluster of one, and the token that may do everything."""
    (node,) = _nodes(folder, ports)
    try:
        token = Secret(_initialized(node))
        awaited(lambda: node.leads, "a leader")
        yield node, token
    finally:
        node.kill()


def _nodes(folder: Path, ports: Sequence[int]) -> list[Node]:
    (folder / "unseal.key").write_bytes(secrets.token_bytes(32))
    api, inner = ports[::2], ports[1::2]
    nodes = []
    for number, port in enumerate(api):
        config = folder / f"node-{number}.hcl"
        (folder / f"data-{number}").mkdir()
        config.write_text(_config(folder, number, api, inner))
        nodes.append(Node(f"http://127.0.0.1:{port}", config))
    return nodes


def _initialized(first: Node) -> str:
    first.start()

    def asked() -> Any:
        try:
            shares = {"recovery_shares": 1, "recovery_threshold": 1}
            status, answer = first.ask(
                "POST", "sys/init", shares, timeout=_PATIENCE
            )  # answered once, so not to be missed
        except OSError:
            return None
        return answer if status == http.HTTPStatus.OK else None

    return str(awaited(asked, "the first node")["root_token"])


def _config(folder: Path, number: int, api: Sequence[int], inner: Sequence[int]) -> str:
    joins = "\n".join(
        f'  retry_join {{ leader_api_addr = "http://127.0.0.1:{port}" }}' for port in api if port != api[number]
    )
    return f"""
storage "raft" {{
  path = "{folder}/data-{number}"
  node_id = "node-{number}"
  performance_multiplier = 1
  autopilot_reconcile_interval = "250ms"
  autopilot_update_interval = "250ms"
{joins}
}}
listener "tcp" {{
  address = "127.0.0.1:{api[number]}"
  cluster_address = "127.0.0.1:{inner[number]}"
  tls_disable = true
}}
seal "static" {{
  current_key_id = "1"
  current_key = "file://{folder}/unseal.key"
}}
audit "file" "file" {{
  options {{ file_path = "{folder}/audit.log" }}
}}
api_addr = "http://127.0.0.1:{api[number]}"
cluster_addr = "https://127.0.0.1:{inner[number]}"
log_level = "warn"
"""
