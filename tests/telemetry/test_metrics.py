"""Numbers of the service, and their text for Prometheus."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.telemetry import metrics
from broker.telemetry.exposition import Now, exposition
from broker.telemetry.metrics import Expiry

NOW = Now(
    {"connections": ("Open.", lambda: 3), "waiters": ("None.", lambda: None)},
    lambda: [Expiry("acme", 2, "current", 5e8, 1e9)],
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    metrics.reset()
    yield
    metrics.reset()


def samples() -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the samples by name and values of labels, in the order of the labels' names."""
    families = text_string_to_metric_families(exposition(NOW).decode())
    return {
        (s.name, tuple(value for _, value in sorted(s.labels.items()))): s.value
        for family in families
        for s in family.samples
    }


def count_some() -> None:
    for seconds in (0.0005, 0.003, 0.2, 60):
        metrics.request("/v1/bundles", 201, seconds)
    metrics.request("none", 404, 0)
    metrics.refusal(404, "input")
    metrics.batch(0.01, [False, False, True])
    metrics.vault("2xx", 0.002)
    metrics.vault("none", 5)


def test_numbers_are_shown() -> None:
    count_some()
    found = samples()
    assert found["credential_broker_requests_total", ("/v1/bundles", "2xx")] == 4
    assert found["credential_broker_requests_total", ("none", "4xx")] == 1
    assert found["credential_broker_refusals_total", ("input", "404")] == 1
    assert found["credential_broker_bundles_issued_total", ()] == 2
    assert found["credential_broker_leases_renewed_total", ()] == 1
    assert found["credential_broker_batch_leases_sum", ()] == 3
    assert found["credential_broker_vault_requests_total", ("none",)] == 1
    assert found["credential_broker_connections", ()] == 3
    assert found["x509_cert_not_before", ("acme", "2", "current")] == 5e8
    assert found["x509_cert_not_after", ("acme", "2", "current")] == 1e9
    assert ("credential_broker_waiters", ()) not in found


def test_buckets_add_up() -> None:
    count_some()
    found = samples()
    name = "credential_broker_request_duration_seconds_bucket"
    assert found[name, ("0.001", "/v1/bundles")] == 1
    assert found[name, ("0.005", "/v1/bundles")] == 2
    assert found[name, ("10.0", "/v1/bundles")] == 3
    assert found[name, ("+Inf", "/v1/bundles")] == 4
    assert found["credential_broker_request_duration_seconds_count", ("/v1/bundles",)] == 4


def test_only_good_answers_count_as_contact() -> None:
    for status in ("5xx", "none"):
        metrics.vault(status, 1)
        assert not metrics.numbers().vault_answered
    metrics.vault("4xx", 1)
    assert metrics.numbers().vault_answered


@pytest.mark.peer("promtool")
def test_promtool_has_no_complaint() -> None:
    count_some()
    done = subprocess.run(["promtool", "check", "metrics"], input=exposition(NOW), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
