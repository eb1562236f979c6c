"""Files of deploy/ against the schemas and linters of their tools."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.deployed import DEPLOY, manifests
from tests.support.external_secrets import ExternalSecret

BIN: Final = Path(sys.executable).parent
EXTERNAL: Final = "external-secrets.io/v1"
LABEL: Final = {"app.kubernetes.io/name": "credential-broker"}


def passes(program: str, *arguments: str | Path, text: str = "") -> str:
    ended = subprocess.run([BIN / program, *arguments], input=text, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_the_containerfile_is_clean() -> None:
    passes("hadolint", DEPLOY / "image" / "Containerfile")


@pytest.mark.slow
def test_compose_fits_its_specification() -> None:
    passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose" / "compose.yaml")


@pytest.mark.slow
def test_kubernetes_accepts_the_manifests(tmp_path: Path) -> None:
    """Each of them has a schema, but the ServiceMonitor, which is the Prometheus operator's."""
    file = tmp_path / "built.yaml"
    built = [one for one in manifests("example") if one["kind"] != "ServiceMonitor"]
    built.append(yaml.safe_load((DEPLOY / "kubernetes" / "application.yaml").read_text()))
    built += [one for one in ExternalSecret().documents if one["apiVersion"] != EXTERNAL]
    file.write_text(yaml.safe_dump_all(built))
    said = passes("kubernetes-validate", "--strict", file)
    assert said.count("INFO") == len(built)
    assert "WARN" not in said


@pytest.mark.slow
def test_the_external_secret_fits_its_schema(tmp_path: Path) -> None:
    """A schema of ours: the operator's own has a megabyte. It knows the fields that the manifest uses."""
    ours = {one["kind"]: one for one in ExternalSecret().documents if one["apiVersion"] == EXTERNAL}
    assert set(ours) == {"SecretStore", "ExternalSecret"}
    files = [tmp_path / f"{kind}.json" for kind in ours]
    for file, one in zip(files, ours.values(), strict=True):
        file.write_text(json.dumps(one))
    passes("check-jsonschema", "--schemafile", Path(__file__).with_name("external-secrets.schema.json"), *files)


def selectors(manifest: dict[str, Any]) -> dict[str, str]:
    spec = manifest["spec"]
    found = spec.get("selector") or spec.get("podSelector")
    return dict(found.get("matchLabels", found))


def test_every_selector_finds_the_pods() -> None:
    """An empty one would find every pod of the namespace."""
    by_kind = {manifest["kind"]: manifest for manifest in manifests("base")}
    assert by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"] == LABEL
    for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"):
        assert selectors(by_kind[kind]) == LABEL, kind
    ports = {port["name"] for port in by_kind["Service"]["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in by_kind["ServiceMonitor"]["spec"]["endpoints"]} <= ports


def test_manifests_hold_no_secret() -> None:
    assert "Secret" not in {manifest["kind"] for manifest in manifests("example")}


def test_pods_have_no_rights() -> None:
    """The pod security standard "restricted", and more: the root is read-only, and no token of Kubernetes is there."""
    spec = next(one for one in manifests("example") if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
    assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 65532)
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} == {"configMap", "projected", "secret"}
