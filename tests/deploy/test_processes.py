"""Compose file and manifests: their commands, environment, checks and probes, run as processes on this machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.service.test_tls import write_pair
from tests.support.deployed import DEPLOY, Workload, entrypoint, manifests
from tests.support.external_secrets import ExternalSecret
from tests.support.https_server import https_server, token_review
from tests.support.issuer import Issuer
from tests.support.ports import free_ports
from tests.support.system import PASSWORD, System
from tests.support.vault import admin_token

pytestmark = pytest.mark.slow
COMPOSE: Final = DEPLOY / "compose"
IMAGES: Final = {"credential-broker": "broker", "partner-standin": "standin"}  # to stages of the Containerfile
PORTS: Final = ("8200", "9443", "9080", "8250", "8251")
_PATIENCE: Final = 60.0
POD: Final[dict[str, object]] = {  # claims of a service account's token
    "aud": ["vault"],
    "kubernetes.io": {
        "namespace": "credential-broker",
        "serviceaccount": {"name": "broker", "uid": "uid-credential-broker-broker"},
    },
}


def awaited(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    while not holds():
        assert process.poll() is None, f"{process.args!r} ended"
        assert time.monotonic() < until, f"{process.args!r} is not ready"


class Compose:
    """Services of the compose file, each started after those that it depends on."""

    def __init__(self, home: Path, running: ExitStack) -> None:
        self._services: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
        self._running = running
        self._home = home
        state, configuration, secrets, setup = (home / name for name in ("state", "etc", "secrets", "setup"))
        for directory in (state, configuration, secrets, setup):
            directory.mkdir()
        self._places = {
            "/var/lib/credential-broker": str(state),
            "/etc/credential-broker": str(configuration),
            "/run/secrets": str(secrets),
            "/setup": str(setup),
            **dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True)),
        }
        moved = Workload([], {}, self._places).moved
        (configuration / "broker.toml").write_text(moved((COMPOSE / "broker.toml").read_text()))
        (setup / "first_account.py").write_text(moved((COMPOSE / "first_account.py").read_text()))
        shutil.copy(COMPOSE / "partner-password.txt", secrets / "partner-password")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def up(self, name: str) -> None:
        """Start a service, after those that it depends on, and wait until it is healthy or has ended."""
        if name in self.processes:
            return
        service = self._services[name]
        for other, wanted in service.get("depends_on", {}).items():
            self.up(other)
            if wanted["condition"] == "service_completed_successfully":
                assert self.processes[other].wait(_PATIENCE) == 0
        workload = self._workload(service, service.get("command", []))
        self.processes[name] = self._running.enter_context(workload.running(cwd=self._home / "state"))
        if "healthcheck" in service:
            check = service["healthcheck"]["test"][1:]
            probe = Workload(check, workload.environment, self._places)
            awaited(lambda: ended_well(probe), self.processes[name])

    def _workload(self, service: Mapping[str, Any], command: list[str]) -> Workload:
        image = IMAGES.get(service["image"])
        start = service.get("entrypoint") or entrypoint(image or "")
        configuration = {"BROKER_CONFIG": "/etc/credential-broker/broker.toml"} if image == "broker" else {}
        home = {"HOME": str(self._home)}
        return Workload([*start, *command], {**configuration, **home, **service.get("environment", {})}, self._places)


def ended_well(check: Workload) -> bool:
    with check.running(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        return process.wait(_PATIENCE) == 0


@pytest.mark.deep
def test_compose_leads_to_a_bundle(tmp_path: Path) -> None:
    with ExitStack() as running:
        compose = Compose(tmp_path, running)
        compose.up("application")
        assert compose.processes["application"].wait(_PATIENCE) == 0
        bundle = tmp_path / "state" / "bundle" / "current"
        assert (bundle / "password").read_text() == (COMPOSE / "partner-password.txt").read_text().strip()
        assert json.loads((bundle / "manifest.json").read_text())["generation"] == 1
        for again in ("first-account", "application"):  # as `run` does: what is healthy is not started again
            del compose.processes[again]
            compose.up(again)
            assert compose.processes[again].wait(_PATIENCE) == 0
    assert compose.processes["broker"].returncode == 0


@pytest.fixture
def pod(system: System, tmp_path: Path) -> Iterator[Workload]:
    """The container of the Deployment, its volumes as directories here."""
    system.promoted()
    spec = container_spec()
    ports = free_ports(2)
    places = {
        "https://vault.example:8200": system.vault.settings.address,
        'method = "kubernetes"\n': f'method = "kubernetes"\nmount = "kubernetes-{system.vault.settings.mount}"\n',
        '"credential-broker-jwt/pods"': f'"{system.vault.settings.mount}-jwt/pods"',
        "0.0.0.0:8443": f"127.0.0.1:{ports[0]}",
        "0.0.0.0:8251": f"127.0.0.1:{ports[1]}",
        **{mount["mountPath"]: str(tmp_path / mount["name"]) for mount in spec["containers"][0]["volumeMounts"]},
    }
    made = Workload(
        [*entrypoint("broker"), *spec["containers"][0]["args"]],
        {"BROKER_CONFIG": "/etc/credential-broker/broker.toml", "BROKER_MOUNT": system.vault.settings.mount},
        places,
    )
    for volume in spec["volumes"]:
        (tmp_path / volume["name"]).mkdir()
    config = next(one for one in manifests("example") if one["kind"] == "ConfigMap")
    assert list(config["data"]) == ["broker.toml"]
    (tmp_path / "config/broker.toml").write_text(made.moved(config["data"]["broker.toml"]))
    write_pair(tmp_path / "tls", "localhost")
    token = Issuer("https://kubernetes.example").jwt("system:serviceaccount:credential-broker:broker", **POD)
    (tmp_path / "login/token").write_text(token)
    with https_server(tmp_path / "vault-ca", token_review({token: "credential-broker/broker"})) as url:
        add_role(system, url, (tmp_path / "vault-ca/ca.crt").read_text())
        yield made
        system.vault.admin.call("DELETE", f"sys/auth/kubernetes-{system.vault.settings.mount}")


@pytest.fixture
def application(system: System, pod: Workload, tmp_path: Path) -> Iterator[Workload]:
    """The sidecar of application.yaml, its service account enrolled."""
    pods = Issuer("https://kubernetes.default.svc.cluster.local")
    (system.home / "pods.pem").write_text(pods.public_pem)
    issuer = f'\n[issuers.pods]\nissuer = "{pods.name}"\naudience = "credential-broker"\nkeys_file = "pods.pem"\n'
    with (system.home / "broker.toml").open("a") as file:
        file.write(issuer)
    mount = f"{system.vault.settings.mount}-jwt/pods"
    system.changes = {"VAULT_TOKEN": admin_token(system.vault.admin, jwt_mounts=[mount]).reveal()}
    system.ok("vault", "setup")
    text = (DEPLOY / "kubernetes" / "application.yaml").read_text()
    system.ok(*re.findall(r"broker (vault enrol .*)", text)[0].split())
    system.changes = {}
    (container,) = yaml.safe_load(text)["spec"]["initContainers"]
    address = pod.moved("0.0.0.0:8443").replace("127.0.0.1", "localhost")
    places = {
        "https://broker.credential-broker.svc": f"https://{address}",
        "/etc/broker/ca.crt": str(tmp_path / "tls/tls.crt"),
        "/dev/shm": str(tmp_path / "shm"),
        **{mount["mountPath"]: str(tmp_path / mount["name"]) for mount in container["volumeMounts"]},
    }
    for name in ("shm", "token"):
        (tmp_path / name).mkdir()
    (tmp_path / "shm").chmod(0o1777)
    (tmp_path / "token/token").write_text(pods.jwt("system:serviceaccount:shop:web"))
    variables = {one["name"]: one["value"] for one in container["env"]}
    yield Workload([*entrypoint("broker"), *container["args"]], {**variables, "HOME": str(tmp_path)}, places)
    system.vault.admin.call("DELETE", f"sys/auth/{mount}")


def add_role(system: System, url: str, ca: str) -> None:
    """Make the Kubernetes mount, and the role that deploy/README.md writes, from its text."""
    admin, mount = system.vault.admin, system.vault.settings.mount
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    written = re.findall(r"^bao write auth/kubernetes/role/broker-server (.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    role = dict(word.split("=") for word in written.replace("\\\n", "").split())
    role["token_policies"] = role["token_policies"].replace("credential-broker/", f"{mount}/")
    admin.call("POST", f"sys/auth/kubernetes-{mount}", {"type": "kubernetes"})
    cluster = {"kubernetes_host": url, "kubernetes_ca_cert": ca, "token_reviewer_jwt": "reviewer"}
    admin.call("POST", f"auth/kubernetes-{mount}/config", cluster)
    admin.call("POST", f"auth/kubernetes-{mount}/role/broker-server", role)


def assert_external_secret(application: Workload, home: Path) -> None:
    """The request of external-secrets.yaml gets the bundle, and comes again before its lease has ended."""
    asked = ExternalSecret()
    data = asked.fetched((home / "token/token").read_text(), home / "tls/tls.crt", application.places)
    assert {type(value) for value in data.values()} == {str}, "the operator takes no other"
    assert (data["password"], data["generation"]) == (PASSWORD, "1")
    assert data["tls.key"].startswith("-----BEGIN PRIVATE KEY-----")
    assert datetime.now(UTC) + asked.refreshes < datetime.fromisoformat(data["expires"])
    with pytest.raises(httpx.HTTPStatusError, match=r"40[13]"):  # not 404, for which the operator has a policy
        asked.fetched("no-jwt", home / "tls/tls.crt", application.places)


def container_spec() -> dict[str, Any]:
    deployment = next(one for one in manifests("example") if one["kind"] == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def test_pods_serve_and_are_served(pod: Workload, application: Workload, tmp_path: Path) -> None:
    """The broker's pod passes its probes, and an application's sidecar gets its bundle from it."""
    container = container_spec()["containers"][0]
    health = pod.moved("0.0.0.0:8251")
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"https": 8443, "health": 8251}
    with pod.running() as process:
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[kind]["httpGet"]
            assert asked["port"] == "health"
            awaited(lambda path=asked["path"]: answers(f"http://{health}{path}"), process)  # type: ignore[misc]
        with application.running() as sidecar:
            files = tmp_path / "shm/acme"
            awaited((files / "current/manifest.json").exists, sidecar)
            assert (files / "current/password").read_text() == PASSWORD
        assert sidecar.returncode == 0
        assert not list(files.iterdir())
        assert_external_secret(application, tmp_path)
        shown = httpx.get(f"http://{health}/metrics", trust_env=False).text
        assert not {name for name in names_in_rules() if f"# HELP {name} " not in shown}
    assert process.returncode == 0


def names_in_rules() -> set[str]:
    """Return the metrics that deploy/prometheus asks for."""
    text = (DEPLOY / "prometheus" / "rules.yaml").read_text(encoding="utf-8")
    ours = set(re.findall(r"\b(?:x509_cert|credential_broker)_\w+", text))
    return {name for name in ours if not re.match(r"credential_broker_(rotation|notify)_", name)}  # the scheduler's


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=30).status_code == 200
    except httpx.TransportError:
        return False
