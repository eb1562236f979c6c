"""`bundle get` as a credential process: its documents, and one call for many processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.cli import credential
from broker.errors import DeniedError
from tests.cli.test_exec import Bench, Live
from tests.fetching.test_service import served
from tests.support.accounts import PLANTED
from tests.support.console import inside
from tests.support.ended import Ended

V1 = "client.authentication.k8s.io/v1"


@pytest.fixture
def bench() -> Iterator[Bench]:
    bundles = Live()
    with served(bundles) as address, tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        yield Bench(bundles, address, Path(home))


def get(bench: Bench, *words: str, asked: bytes = b"", **more: str) -> Ended:
    words = ("bundle", "get", "mzp-1/fleet", *(words or ("-o", "json")))
    return inside(words, home=bench.home, environment=bench.environment | more, input=asked)


def test_second_process_makes_no_call(bench: Bench) -> None:
    first, second = get(bench), get(bench)
    assert first.json == second.json
    assert (first.json["version"], first.json["success"]) == (1, True)
    assert Path(first.json["files"]["tls.key"]).is_file()
    assert PLANTED not in first.out
    assert (len(bench.bundles.wanted), second.err) == (1, "")


def test_other_options_make_a_call(bench: Bench) -> None:
    (bench.home / "other").write_text("s.other")
    for words in (("--ttl", "5m"), ("--consumer-token-file", "other"), ("--format", "env"), ("--to", "elsewhere")):
        get(bench)
        before = len(bench.bundles.wanted)
        assert get(bench, "-o", "json", *words).code == 0
        assert len(bench.bundles.wanted) == before + 1, words


def test_without_json_each_run_makes_a_call(bench: Bench) -> None:
    for _ in range(2):
        assert get(bench, "-o", "table").code == 0
    assert len(bench.bundles.wanted) == 2


def test_kubectl_gets_certificate_and_key(bench: Bench) -> None:
    found = get(bench, "-o", "exec-credential").json
    assert (found["apiVersion"], found["kind"]) == (V1, "ExecCredential")
    files = get(bench).json["files"]
    assert found["status"] == {
        "expirationTimestamp": get(bench).json["expiration"],
        "clientCertificateData": Path(files["tls.crt"]).read_text(),
        "clientKeyData": Path(files["tls.key"]).read_text(),
    }
    assert len(bench.bundles.wanted) == 1


@pytest.mark.parametrize(
    ("info", "answered"),
    [
        ({"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": True}}, V1),
        ({"apiVersion": f"{V1}beta1"}, f"{V1}beta1"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, None),
        ({"apiVersion": ["v1"]}, None),
        ([], None),
        ("x", None),
    ],
)
def test_kubectl_names_the_version(bench: Bench, info: Any, answered: str | None) -> None:
    ended = get(bench, "-o", "exec-credential", KUBERNETES_EXEC_INFO=json.dumps(info))
    if answered:
        assert ended.json["apiVersion"] == answered
        return
    assert (ended.code, ended.out) == (2, "")
    assert f"apiVersion: {V1}" in ended.err
    assert not bench.bundles.wanted


def test_failure_is_a_document(bench: Bench) -> None:
    bench.bundles.error = DeniedError("no right")
    ended = get(bench)
    assert ended.code == 5
    assert {name: ended.json[name] for name in ("version", "success", "code")} == {
        "version": 1, "success": False, "code": "denied"
    }  # fmt: skip
    assert ended.json["message"]
    ended = get(bench, "-o", "exec-credential")
    assert (ended.code, ended.out) == (5, ""), "kubectl shows stderr"
    assert get(bench, "-o", "exec-credential", "--hold").code == 2


def test_token_on_stdin_is_not_reused(bench: Bench) -> None:
    for _ in range(2):
        assert get(bench, "-o", "json", "--consumer-token-file", "-", asked=b"s.token").code == 0
    assert len(bench.bundles.wanted) == 2


def test_terminal_gets_no_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    ended = get(bench, "-o", "exec-credential")
    assert (ended.code, ended.out) == (2, "")
    assert not bench.bundles.wanted


@pytest.mark.slow
def test_a_dozen_processes_make_one_call(bench: Bench) -> None:
    command = [sys.executable, "-m", "broker", "bundle", "get", "mzp-1/fleet", "-o", "json"]
    reading, writing = os.pipe()
    os.write(writing, b"not read")
    started = [
        subprocess.Popen(
            command, env=bench.environment, cwd=bench.home, stdin=reading, stdout=subprocess.PIPE, text=True
        )
        for _ in range(12)
    ]
    answers = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * 12
    assert len(set(answers)) == 1
    assert json.loads(answers[0])["expiration"]
    assert [wanted.ttl for wanted in bench.bundles.wanted] == [timedelta(hours=1)]
    assert os.read(reading, 100) == b"not read"
    os.close(reading)
    os.close(writing)
