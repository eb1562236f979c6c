"""The object graph: the one place where adapters meet ports."""

from broker.compose.graph import Broker, Wiring

__all__ = ["Broker", "Wiring"]
