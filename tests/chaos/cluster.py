"""Three OpenBao nodes on loopback that keep one store by raft, to be killed, paused and cut off."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from broker_demo import raft
from broker_demo.raft import Cluster, Node, awaited

from broker.model.secret import Secret
from tests.support.ports import free_ports

__all__ = ["Cluster", "Node", "awaited", "raft_cluster", "raft_node"]


@contextmanager
def raft_cluster() -> Iterator[Cluster]:
    """Yield a cluster of three; it is gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="broker-cluster-", dir="/dev/shm") as directory,
        raft.cluster(Path(directory), free_ports(2 * raft.NODES)) as made,
    ):
        yield made


def raft_node(folder: Path) -> AbstractContextManager[tuple[Node, Secret[str]]]:
    """Yield a cluster of one in `folder`, and the token that may do everything: for measurements."""
    return raft.single(folder, free_ports(2))
