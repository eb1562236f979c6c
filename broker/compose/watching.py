"""Connect what the metrics show to where it is known."""

from collections.abc import Callable

from broker.compose.issuing import Issuing
from broker.issuing.expiries import Expiries
from broker.service.listeners import Listener


def metrics(issuing: Issuing, expiries: Expiries, listener: Listener) -> Callable[[], bytes]:
    """Return a function that returns all metrics of a service as text."""
    tls, service = listener.tls, issuing.service
    gauges: dict[str, tuple[str, Callable[[], float | None]]] = {
        "connections": ("Open connections of callers.", lambda: listener.guard.open),
        "connections_idle": ("Those of them without a request.", lambda: len(listener.guard.idle)),
        "waiters": ("Requests that wait for a change.", lambda: issuing.waits.count),
        "vault_pending": ("Requests that are with Vault, or wait for that.", lambda: service.pending),
        "accounts_unread": ("Accounts whose certificates are not known.", lambda: expiries.unread),
        "login_expires_timestamp_seconds": ("End of the server role's token.", issuing.login_ends),
        "tls_not_before_timestamp_seconds": (
            "Begin of the service's certificate.",
            lambda: tls.not_before if tls else None,
        ),
        "tls_not_after_timestamp_seconds": (
            "End of the service's certificate.",
            lambda: tls.not_after if tls else None,
        ),
    }

    def shown() -> bytes:
        from broker.telemetry.exposition import Now, exposition  # other commands load no prometheus_client

        return exposition(Now(gauges, expiries.all))

    return shown
