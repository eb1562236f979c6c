"""Two of what is not one account's document: publishers of a bundle, setters-up and starters of a vault, demos."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.embedded.server import status, stop
from tests.chaos.race_histories import Arena, arena
from tests.chaos.racing import Starter, Wanted
from tests.support.system import System
from tests.support.vault import with_root_token

__all__ = ["arena"]  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def assert_whole(directory: Path, generation: int) -> None:
    """The bundle is there once, whole, and nothing half-done lies beside it."""
    assert sorted(p.name for p in directory.iterdir()) == ["current", f"gen-{generation:06d}"]
    manifest = json.loads((directory / "current" / "manifest.json").read_text())
    assert set(manifest["files"]) == {p.name for p in (directory / "current").iterdir()} - {"manifest.json"}


def published(arena: Arena, *directories: str) -> list[str]:
    arena.begun("promoted")
    token = arena.system.consumer("acme/reporting", name=f"reader-{len(directories)}-{len(set(directories))}")
    wanted = [
        Wanted(
            ["bundle", "get", "acme/reporting", "--consumer-token-file", str(token), "--to", to],
            seed=number,
            slowness=0.01,
        )
        for number, to in enumerate(directories)
    ]
    ended = arena.starter.at_once(*wanted)
    assert [e.code for e in ended] == [0] * len(directories), [e.err for e in ended]
    return [e.out for e in ended]


def holdings(arena: Arena) -> list[bool]:
    """Return what consumers are recorded to hold: whether several processes share it."""
    admin = arena.system.vault.admin
    found = [admin.read(f"consumers/{name}").data["value"] for name in admin.list("consumers")]
    return [holding["shared"] for value in found for holding in value["holdings"]]


def issued(arena: Arena) -> list[str]:
    """Return the leases that the evidence of issuing processes names."""
    admin, folder = arena.system.vault.admin, "evidence/issued"
    pages = [f"{folder}/{chain}{page}" for chain in admin.list(folder) for page in admin.list(f"{folder}/{chain[:-1]}")]
    return [admin.read(page).data["value"]["facts"]["lease"] for page in pages]


def test_publishers_in_one_directory(arena: Arena) -> None:
    directory = arena.system.home / "one"
    before = len(issued(arena))
    printed = published(arena, *[str(directory)] * 6)
    assert_whole(directory, 1)
    assert len(set(printed)) == 1
    assert holdings(arena) == [True]
    assert len(set(issued(arena))) == len(issued(arena)) == before + 6
    assert arena.starter.ok("evidence", "verify", "--all", "-o", "json").json["success"] is True


def test_publishers_in_two_directories(arena: Arena) -> None:
    directories = [arena.system.home / name for name in ("left", "right")]
    published(arena, *map(str, directories))
    for directory in directories:
        assert_whole(directory, 1)


def test_publisher_racing_a_promotion(arena: Arena) -> None:
    for seed in range(3):
        arena.begun("renewed")
        token = arena.system.consumer("acme/reporting", name=f"racer-{seed}")
        directory = arena.system.home / f"raced-{seed}"
        get = ["bundle", "get", "acme/reporting", "--consumer-token-file", str(token), "--to", str(directory)]
        got, promoted = arena.starter.at_once(
            Wanted(get, seed=seed, slowness=0.02),
            Wanted(["rotation", "promote", "acme"], seed=seed + 50, slowness=0.02),
        )
        assert (got.code, promoted.code) == (0, 0), (got.err, promoted.err)
        generation = int((directory / "current").readlink().name.removeprefix("gen-"))
        assert_whole(directory, generation)
        assert generation in (1, 2)


def test_concurrent_vault_setups_succeed(system: System) -> None:
    with with_root_token() as settings:
        assert settings.token
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(system.home),
            "LANG": "C.UTF-8",
            "VAULT_ADDR": settings.address,
            "VAULT_TOKEN": settings.token.reveal(),
        }
        with Starter(system.home, environment) as starter:
            ended = starter.at_once(*[Wanted(["vault", "setup"], seed=n, slowness=0.01) for n in range(4)])
            assert [e.code for e in ended] == [0] * 4, [e.err for e in ended]
            third = starter.ok("vault", "setup", "--dry-run", "-o", "json")
            assert {change["action"] for change in third.json} == {"keep"}


def test_concurrent_accounts_of_one_name(arena: Arena) -> None:
    arena.starter.ok("account", "list")
    options = ["--environment", "stand-in", "--base-url", arena.system.partner.api_url, "--subject", "C=FR"]
    options += ["--subject", "O=Exemple", "--subject", "emailAddress=a@exemple.example"]
    for part in ("ST=Paris", "L=Paris"):
        options += ["--subject", part]
    same = Wanted(["account", "add", "twin", *options, "--login", "MZP0000001"], slowness=0.01)
    other = Wanted(["account", "add", "twin", *options, "--login", "MZP0000002"], slowness=0.01)
    ended = arena.starter.at_once(same, same, other)
    codes = [e.code for e in ended]
    assert codes in ([0, 0, 8], [8, 8, 0]), [e.err for e in ended]
    for lost in (e for e in ended if e.code == 8):
        assert "for login MZP000000" in lost.err


@contextmanager
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="broker-two-"))
    try:
        yield path
    finally:
        stop(path / "vault")
        shutil.rmtree(path)


def test_concurrent_starts_make_one_server() -> None:
    with directory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
        (home / "broker.toml").write_text('version = 1\n[embedded]\ndirectory = "vault"\n')
        environment["BROKER_CONFIG"] = str(home / "broker.toml")
        with Starter(home, environment) as starter:
            for _ in range(2):  # new, and again
                ended = starter.at_once(*[Wanted(["vault", "start"], seed=n, slowness=0.01) for n in range(3)])
                assert [e.code for e in ended] == [0] * 3, [e.err for e in ended]
                running = status(home / "vault")
                assert running
                assert all(f"process {running.pid}" in e.err for e in ended)
            found = starter.ok("doctor", "-o", "json").out + starter.ok("account", "list").out
            assert "error" not in found.lower()


@pytest.mark.chaos
def test_concurrent_demos_succeed() -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
    demos = [
        subprocess.Popen(
            [sys.executable, "-m", "broker", "demo"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(2)
    ]
    for demo in demos:
        out, _ = demo.communicate(timeout=200)
        assert demo.returncode == 0, out.decode()[-2000:]
