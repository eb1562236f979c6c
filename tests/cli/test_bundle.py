"""`bundle get`: what lies there, and what stays on record, go together."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from broker.cli import bundle
from broker.delivery.root import Root
from broker.vault.consumers import VaultConsumers
from tests.support.cli_harness import CliHarness

GET = "bundle get acme/reporting --consumer-token-file reader.token --to bundle"


def holders(harness: CliHarness) -> list[str]:
    return [r.name for r in VaultConsumers(harness.saved.system.vault.admin).all().found.values() if r.holdings]


def files(harness: CliHarness) -> list[Path]:
    return sorted((harness.home / "bundle").glob("*"))


def assert_nothing_held(harness: CliHarness) -> None:
    assert files(harness) == []
    assert holders(harness) == []


def test_directory_is_data_and_notes_are_not(harness: CliHarness) -> None:
    harness.put("promoted")
    ended = harness.ok(GET)
    assert (Path(ended.out.strip()) / "tls.key").is_file()
    assert "requested" not in ended.err
    assert "directly from Vault" in ended.err
    ended = harness.ok(f"{GET} --ttl 100d -o json")
    assert (Path(ended.json["directory"]) / "tls.key").is_file()
    assert "requested: 100d; a lease lasts an hour at most" in ended.err


def test_json_has_the_error(harness: CliHarness) -> None:
    harness.put("promoted")
    for line, kind in (("acme/other", "denied"), ("nobody/reporting", "unknown-name"), ("acme", "input")):
        ended = harness.run(GET.replace("acme/reporting", line) + " -o json")
        assert ended.code
        assert {"success", "code", "message"} <= set(ended.json)
        assert (ended.json["success"], ended.json["code"]) == (False, kind)


def test_bundle_of_another_application_is_denied(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.ok("app add acme/other --client-id 22222222-2222-4222-8222-222222222222")
    assert harness.run(GET.replace("acme/reporting", "acme/other")).code == 5
    assert_nothing_held(harness)


@pytest.mark.parametrize("hours", [3, -8])
def test_wrong_clock_reports_no_holders(harness: CliHarness, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    harness.put("rotated")
    wrong = SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + hours * 3600)
    monkeypatch.setattr("broker.vault.transport.time", wrong)
    for line in (GET, "rotation retire acme --generation 1"):
        ended = harness.run(line)
        assert ended.code == 6
        assert "this machine's clock is" in ended.err
    harness.assert_unchanged()


def test_bundle_is_returned_without_a_reader(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the terminal was closed."""
    harness.put("promoted")
    held: list[str] = []

    def closed(_: str) -> None:
        held.extend(holders(harness))
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(bundle, "note", closed)
    assert harness.run(f"{GET} --hold --ttl 5m").code == 1
    assert held
    assert_nothing_held(harness)


Then = Callable[[Callable[[], object]], None]


@pytest.fixture
def then_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Then]:
    """Return how to have something done once a holder's files lie there, before SIGQUIT asks it to end."""

    def unheard(*_: object) -> None:
        raise AssertionError("SIGQUIT would have ended the process")

    def take(act: Callable[[], object]) -> None:
        acts: list[Callable[[], object]] = [act, lambda: signal.raise_signal(signal.SIGQUIT)]
        monkeypatch.setattr(bundle, "note", lambda text: acts.pop(0)() if acts else click.echo(text, err=True))

    before = signal.signal(signal.SIGQUIT, unheard)
    yield take
    signal.signal(signal.SIGQUIT, before)


def test_a_renamed_bundle_is_removed_too(harness: CliHarness, then_asked: Then) -> None:
    harness.put("promoted")
    then_asked(lambda: (harness.home / "bundle").rename(harness.home / "away"))
    ended = harness.ok(f"{GET} --hold --ttl 5m")
    assert "the files of this lease are gone" in ended.err
    assert not list(harness.home.rglob("tls.key"))
    assert_nothing_held(harness)


def test_lost_key_keeps_the_lease_on_record(harness: CliHarness, then_asked: Then) -> None:
    harness.put("promoted")
    then_asked(lambda: (harness.home / "bundle" / "gen-000001" / "tls.key").rename(harness.home / "tls.key"))
    ended = harness.run(f"{GET} --hold --ttl 5m")
    assert ended.code == 2
    assert "tls.key cannot be found" in ended.err
    assert "are gone" not in ended.err
    assert not list(harness.home.rglob("password"))
    assert holders(harness)


def test_unpublished_bundle_is_given_back(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.put("promoted")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Root, "point", full)
    ended = harness.run(GET)
    assert ended.code == 9
    assert "no space left" in ended.err
    assert_nothing_held(harness)


def test_stuck_bundle_stays_on_record(harness: CliHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.put("promoted")

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Root, "point", refused)
        patch.setattr(Root, "remove", refused)
        ended = harness.run(GET)
    assert ended.code == 2
    assert "cannot be removed (operation not permitted)" in ended.err.lower()
    assert holders(harness)
    assert list(harness.home.rglob("tls.key"))
