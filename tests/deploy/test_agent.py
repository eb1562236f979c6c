"""deploy/kubernetes/agent.yaml: valid, and what it starts works, probes included."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cli.test_agent import Live
from tests.deploy.test_files import passes
from tests.fetching.test_service import served
from tests.support.deployed import DEPLOY, Workload, entrypoint

pytestmark = pytest.mark.slow
FILE: Final = DEPLOY / "kubernetes" / "agent.yaml"
CONFIG, POD = yaml.safe_load_all(FILE.read_text(encoding="utf-8"))


def test_kubernetes_accepts_the_sidecar() -> None:
    said = passes("kubernetes-validate", "--strict", FILE)
    assert (said.count("INFO"), "WARN" in said) == (2, False)


def test_the_sidecar_is_confined() -> None:
    (sidecar,) = POD["spec"]["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert (POD["spec"]["automountServiceAccountToken"], POD["spec"]["securityContext"]["runAsNonRoot"]) == (
        False,
        True,
    )
    assert sidecar["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.fixture
def workload(tmp_path: Path) -> Iterator[tuple[Workload, Path]]:
    """The sidecar's command with the configuration of its ConfigMap, and its /dev/shm."""
    (sidecar,) = POD["spec"]["initContainers"]
    home = tmp_path
    with served(Live()) as address:
        places = {
            "https://broker.credential-broker.svc": address,
            'ca_file = "/etc/broker-ca/ca.crt"\n': "",
            "acme/reporting": "mzp-1/fleet",
            "/dev/shm": str(home / "shm"),
            **{mount["mountPath"]: str(home / mount["name"]) for mount in sidecar["volumeMounts"]},
        }
        made = Workload([*entrypoint("broker"), *sidecar["args"]], {"HOME": str(home)}, places)
        for name in ("shm", "config", "token"):
            (home / name).mkdir()
        (home / "shm").chmod(0o1777)
        (home / "config/broker.toml").write_text(made.moved(CONFIG["data"]["broker.toml"]))
        (home / "token/token").write_text("s.token")
        yield made, home


def probed(workload: Workload, probe: dict[str, Any]) -> int:
    """Run the command of a probe, as the kubelet does; return its exit code."""
    command = Workload(probe["exec"]["command"], {}, workload.places)
    with command.running(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        return process.wait()


def test_its_probes_pass(workload: tuple[Workload, Path]) -> None:
    made, home = workload
    (sidecar,) = POD["spec"]["initContainers"]
    with made.running() as process:
        while probed(made, sidecar["startupProbe"]):
            assert process.poll() is None
            time.sleep(0.01)
        assert (home / "shm/acme/current/manifest.json").exists()
        assert probed(made, sidecar["livenessProbe"]) == 0
    assert process.returncode == 0
    assert not list((home / "shm").iterdir())
    assert probed(made, sidecar["startupProbe"]) == 1
