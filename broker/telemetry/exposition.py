"""Show the numbers of this process in Prometheus' text format, with those that are read when they are asked for."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from msgspec import Struct, field
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker import __version__
from broker.telemetry import metrics

_OWN: Final = "credential_broker_"
_Key = TypeVar("_Key", bound=tuple[str, ...])


class Now(Struct, frozen=True):
    """Numbers that are read when they are asked for. A gauge that is None is left out."""

    gauges: dict[str, tuple[str, Callable[[], float | None]]] = field(default_factory=dict)  # name: help, value
    expiries: Callable[[], Iterable[metrics.Expiry]] = tuple
    families: Callable[[], Iterable[metrics.Family]] = tuple


def exposition(now: Now) -> bytes:
    """Return all metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(now))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Numbers(Collector):
    def __init__(self, now: Now) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        found = metrics.numbers()
        yield _counter("requests", "Requests answered.", ("route", "status"), found.requests.copy())
        yield _histogram("request_duration_seconds", "Time to answer.", ("route",), dict(found.request_seconds))
        yield _counter("refusals", "Answers that are problems.", ("status", "code"), found.refusals.copy())
        yield _counter("bundles_issued", "Leases granted.", (), {(): found.issued})
        yield _counter("leases_renewed", "Leases renewed.", (), {(): found.renewed})
        yield _histogram("batch_leases", "Leases recorded together.", (), {"": found.batch_leases})
        yield _histogram("batch_duration_seconds", "Time to record a batch.", (), {"": found.batch_seconds})
        yield _counter("vault_requests", "Requests to Vault.", ("status",), {(k,): n for k, n in found.vault.items()})
        yield _histogram("vault_request_duration_seconds", "Time of a request to Vault.", (), {"": found.vault_seconds})
        yield _gauge("vault_last_answer_timestamp_seconds", "Newest good answer of Vault.", found.vault_answered)
        info = GaugeMetricFamily(f"{_OWN}build_info", "Version of the broker.", labels=("version", "python"))
        info.add_metric((__version__, platform.python_version()), 1)
        yield info
        for name, (meaning, value) in self._now.gauges.items():
            known = value()
            if known is not None:
                yield _gauge(name, meaning, known)
        for family in self._now.families():
            shown = GaugeMetricFamily(f"{_OWN}{family.name}", family.meaning, labels=family.labels)
            for key, number in family.values.items():
                shown.add_metric(key, number)
            yield shown
        labels = ("account", "generation", "stage")
        begins = GaugeMetricFamily("x509_cert_not_before", "Begin of a certificate, Unix time.", labels=labels)
        ends = GaugeMetricFamily("x509_cert_not_after", "End of a certificate, Unix time.", labels=labels)
        for one in self._now.expiries():
            values = (one.account, str(one.generation), one.stage)
            begins.add_metric(values, one.not_before)
            ends.add_metric(values, one.not_after)
        yield from (begins, ends)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_OWN}{name}", meaning, value=value)


def _counter(name: str, meaning: str, labels: tuple[str, ...], values: Mapping[_Key, int]) -> Metric:
    family = CounterMetricFamily(f"{_OWN}{name}", meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, meaning: str, labels: tuple[str, ...], values: dict[str, metrics.Distribution]) -> Metric:
    family = HistogramMetricFamily(f"{_OWN}{name}", meaning, labels=labels)
    for key, value in values.items():
        family.add_metric((key,) if labels else (), value.buckets(), value.total)
    return family
