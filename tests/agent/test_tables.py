"""`[[bundles]]` of broker.toml: what is read, and what is refused."""

from __future__ import annotations

import os
import signal
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from broker.agent.files import Copy
from broker.agent.tables import BundleTable, Hook, OnStale, bundle_tables
from broker.delivery.formats import FileFormat
from broker.errors import InputError
from broker.model.bundle import Wanted
from broker.model.names import AccountName

BASE = Path("/etc/broker")


def read(text: str, default: Path | None = None) -> list[BundleTable]:
    return bundle_tables(tomllib.loads(text)["bundles"], BASE, default)


def test_every_key_is_read() -> None:
    (found,) = read(
        """
        [[bundles]]
        application = "acme/reporting"
        ttl = "30m"
        directory = "run"
        formats = ["keystore.p12"]
        max_stale = "2h"
        on_stale = "keep"
        [[bundles.files]]
        format = "tls.key"
        path = "/etc/nginx/partner.key"
        mode = "0640"
        owner = "0:0"
        [bundles.hooks]
        signal = "SIGHUP"
        pid_file = "nginx.pid"
        process = "nginx"
        command = ["a", "b"]
        systemd-reload = "nginx.service"
        on_failure = ["c"]
        timeout = "5s"
        [bundles.kv]
        path = "x"
        """
    )
    assert found == BundleTable(
        Wanted(AccountName("acme"), "reporting", timedelta(minutes=30)),
        BASE / "run",
        (FileFormat.KEYSTORE,),
        (Copy(FileFormat.KEY, Path("/etc/nginx/partner.key"), 0o640, (0, 0)),),
        Hook(signal.SIGHUP, BASE / "nginx.pid", "nginx", ("a", "b"), "nginx.service", ("c",), timedelta(seconds=5)),
        timedelta(hours=2),
        OnStale.KEEP,
        {"path": "x"},
    )
    assert found.name == "acme/reporting"


def test_directories_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    line = '[[bundles]]\napplication = "acme/reporting"'
    assert read(line, Path("/run/bundles"))[0].root == Path("/run/bundles/acme/reporting")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/dev/shm")
    assert read(line)[0].root == Path("/dev/shm/credential-broker/acme/reporting")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('application = "acme"', "application is not ACCOUNT/APPLICATION"),
        ('application = "Acme/x"', "account 'Acme' is not a name"),
        ('application = "acme/x/y"', "application 'x/y' is not a name"),
        ("application = 1", "application: Expected `str`"),
        ("", "missing `application`"),
        ('application = "a/b"\nttl = "2h"', "too short or too long"),
        ('application = "a/b"\nttl = "1s"', "too short or too long"),
        ('application = "a/b"\nttl = "x"', "'x' is not a duration"),
        ('application = "a/b"\nformats = ["jks"]', "'jks' is not a file of a bundle"),
        ('application = "a/b"\non_stale = "hope"', "on_stale: Invalid enum value 'hope'"),
        ('application = "a/b"\ndirectry = "x"', "unknown key `directry`"),
        ('application = "a/b"\ndirectory = "a\\u0007"', "control character"),
        ('application = "a/b"\nfiles = [{format = "tls.key", path = ""}]', "a path is empty"),
        ('application = "a/b"\nfiles = [{format = "tls.key", path = "/k", mode = "0644"}]', "opens tls.key to others"),
        ('application = "a/b"\nfiles = [{format = "ca.crt", path = "/k", mode = "0666"}]', "opens ca.crt to others"),
        ('application = "a/b"\nfiles = [{format = "ca.crt", path = "/k", mode = "rw"}]', "'rw' is not a mode"),
        ('application = "a/b"\nfiles = [{format = "ca.crt", path = "/k", mode = "4644"}]', "'4644' is not a mode"),
        ('application = "a/b"\nfiles = [{format = "ca.crt", path = "/k", owner = "no-such"}]', "is not known"),
        ('application = "a/b"\nhooks = {signal = "HUP"}', "signal and pid_file belong together"),
        ('application = "a/b"\nhooks = {signal = "NO", pid_file = "x"}', "'NO' is not a signal"),
        ('application = "a/b"\nhooks = {systemd-reload = "-x y"}', "'-x y' is not a unit"),
        ('application = "a/b"\nhooks = {command = "sh -c x"}', "hooks.command: Expected `array`"),
    ],
)
def test_tables_that_are_refused(lines: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read(f"[[bundles]]\n{lines}")
    assert message in raised.value.message
    assert raised.value.message.startswith("[[bundles]]")
    assert raised.value.hint


def test_two_bundles_share_nothing() -> None:
    for one, other in (('directory = "d"', 'directory = "d"'), ("", "")):
        with pytest.raises(InputError, match="use the directory"):
            read(f'[[bundles]]\napplication = "a/b"\n{one}\n[[bundles]]\napplication = "a/b"\n{other}')
    with pytest.raises(InputError, match="use the application a/b"):
        read('[[bundles]]\napplication = "a/b"\n[[bundles]]\napplication = "a/b"\ndirectory = "d"')
    files = 'files = [{format = "ca.crt", path = "/ca"}]'
    with pytest.raises(InputError, match="use the path /ca"):
        read(f'[[bundles]]\napplication = "a/b"\n{files}\n[[bundles]]\napplication = "a/c"\n{files}')


def test_an_owner_by_name() -> None:
    line = '[[bundles]]\napplication = "a/b"\nfiles = [{format = "ca.crt", path = "/ca", owner = "%s"}]'
    assert read(line % "root:root")[0].copies[0].owner == (0, 0)
    assert read(line % f":{os.getgid()}")[0].copies[0].owner == (-1, os.getgid())
