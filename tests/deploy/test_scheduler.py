"""deploy/: units and CronJob of the scheduler are valid and confined, and what they start sweeps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.deploy.test_files import passes
from tests.support.deployed import DEPLOY, Workload, entrypoint, manifests
from tests.support.system import System

UNITS: Final = sorted((DEPLOY / "systemd").glob("broker-rotation*.service"))
TIMER: Final = DEPLOY / "systemd" / "broker-rotation-once.timer"
EXPOSED: Final = 20  # tenths of systemd's exposure level
LABEL: Final = {"app.kubernetes.io/name": "credential-broker-scheduler"}
by_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def values(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def analyzed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.peer("systemd-analyze")
def test_the_units_are_valid(tmp_path: Path) -> None:
    """`verify` exits with 0 for an unknown key, so its output is read."""
    for unit in UNITS:
        program = values(unit, "ExecStart")[0].split()[0]
        (tmp_path / unit.name).write_text(unit.read_text().replace(program, sys.executable))
    shutil.copy(TIMER, tmp_path)
    ended = analyzed("verify", "--man=no", *(tmp_path / one.name for one in (*UNITS, TIMER)))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.peer("systemd-analyze")
@by_unit
def test_the_units_are_confined(unit: Path) -> None:
    ended = analyzed("security", "--offline=yes", f"--threshold={EXPOSED}", unit)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.slow
def test_a_unit_sweeps(system: System) -> None:
    """Both units load the same files and name the same configuration, beside the logins."""
    credentials = system.home / "credentials"
    credentials.mkdir()
    daemon, once = sorted(UNITS, key=lambda unit: "once" in unit.stem)
    loaded = [value.partition(":")[::2] for value in values(once, "LoadCredential")]
    assert values(daemon, "LoadCredential") == values(once, "LoadCredential")
    assert values(daemon, "Environment") == values(once, "Environment")
    for name, source in loaded:
        file = source.removeprefix("/etc/credential-broker/")
        shutil.copy(system.home / file if file.startswith("roles") else DEPLOY / "systemd" / file, credentials / name)
    places = {"%d": str(credentials), "https://vault.example:8200": system.vault.settings.address}
    variables = dict(word.partition("=")[::2] for value in values(once, "Environment") for word in value.split())
    unit = Workload(values(once, "ExecStart")[0].split(), variables, places)
    text = (
        (credentials / "broker.toml")
        .read_text()
        .replace("[vault]", f'[vault]\nmount = "{system.vault.settings.mount}"')
    )
    (credentials / "broker.toml").write_text(unit.moved(text))
    system.promoted()
    with unit.running(stderr=subprocess.PIPE, cwd=system.home) as process:
        _, said = process.communicate()
    assert (process.returncode, "nothing to do: 1 account" in said.decode()) == (0, True), said.decode()


def test_the_job_is_one_sweep() -> None:
    job = next(one for one in manifests("scheduler") if one["kind"] == "CronJob")["spec"]
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert [*entrypoint("broker"), *container["args"]][1:] == ["rotation", "run", "--once"]
    assert (pod["automountServiceAccountToken"], pod["securityContext"]["runAsNonRoot"]) == (False, True)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_policy_finds_the_jobs_pods() -> None:
    """And the Service of the broker finds none of them."""
    by_kind = {manifest["kind"]: manifest for manifest in manifests("scheduler")}
    template = by_kind["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    assert template["metadata"]["labels"] == LABEL
    assert by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == LABEL
    assert "Secret" not in by_kind


@pytest.mark.slow
def test_kubernetes_accepts_the_job(tmp_path: Path) -> None:
    file = tmp_path / "built.yaml"
    built = manifests("scheduler")
    file.write_text(yaml.safe_dump_all(built))
    said = passes("kubernetes-validate", "--strict", file)
    assert (said.count("INFO"), "WARN" in said) == (len(built), False)
