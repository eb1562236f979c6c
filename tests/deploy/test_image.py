"""deploy/image: the image is built without network from a Debian root, and serves, read-only and without rights.

A registry is not needed: the base is made by debootstrap. `runc` starts the image as Kubernetes would: an ordinary
user, no capability, a root that cannot be written.
"""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.e2e.test_service import ASKED
from tests.support.deployed import DEPLOY
from tests.support.ports import free_ports
from tests.support.sources import ROOT
from tests.support.system import PASSWORD, System

MIRROR: Final = "http://deb.debian.org/debian"
LARGEST: Final = 120_000_000  # bytes
SUITE: Final = "bookworm"  # has Python 3.11
CONTAINERFILE: Final = DEPLOY / "image" / "Containerfile"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deep,
    pytest.mark.timeout(1200),
    pytest.mark.rights("mount"),
    pytest.mark.peer("buildah", "debootstrap", "runc"),
]


def ran(*command: str | Path) -> str:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.strip()


@dataclass(frozen=True)
class Image:
    """An image: its file system, and how its processes start."""

    root: Path
    settings: dict[str, Any]


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The broker's image, built as deploy/image/Containerfile says."""
    with tempfile.TemporaryDirectory(prefix="broker-image-") as directory:
        yield from built(Path(directory))


def built(work: Path) -> Iterator[Image]:
    buildah = ("buildah", "--root", work / "store", "--runroot", work / "run", "--storage-driver", "vfs")
    ran("debootstrap", "--variant=minbase", "--include=python3,python3-venv", SUITE, work / "base", MIRROR)
    base = ran(*buildah, "from", "scratch")
    ran(*buildah, "add", base, work / "base", "/")
    ran(*buildah, "commit", base, "base")
    ran(DEPLOY / "image" / "prepare")
    build = ("build", "--isolation", "chroot", "--build-arg", "BASE=localhost/base", "--target", "broker")
    ran("unshare", "--net", *buildah, *build, "-f", CONTAINERFILE, "-t", "broker", "build/image")
    made = ran(*buildah, "from", "localhost/broker")
    settings = json.loads(ran(*buildah, "inspect", "--type", "image", "broker"))["OCIv1"]["config"]
    yield Image(Path(ran(*buildah, "mount", made)), settings)
    ran(*buildah, "rm", "--all")


@pytest.mark.slow
def test_the_containerfile_is_clean() -> None:
    ran(Path(sys.executable).with_name("hadolint"), CONTAINERFILE)


def test_nothing_but_the_broker_is_inside(image: Image) -> None:
    files = [path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()]
    programs = [file for file in files if file.stat().st_mode & 0o111 and ".so" not in file.name]
    assert [file.name for file in programs if file.read_bytes().startswith(b"\x7fELF")] == ["python3.11"]
    assert not [f for f in files if f.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH)]
    assert not [f for f in files if f.name in ("sh", "bash", "dash", "busybox", "pip", "apt", "dpkg")]
    assert sum(file.stat().st_size for file in files) < LARGEST
    assert image.settings["User"] == "65532:65532"
    state = (image.root / "var/lib/credential-broker").stat()
    assert (state.st_uid, state.st_mode & 0o777) == (65532, 0o700)


def test_it_serves_read_only(image: Image, system: System, tmp_path: Path) -> None:
    system.promoted()
    token = {"X-Vault-Token": system.consumer("acme/reporting").read_text()}
    socket = Path(system.vault.settings.address.removeprefix("unix://"))
    socket.chmod(0o666)  # its directory is closed to others
    port = free_ports(1)[0]
    (tmp_path / "broker.toml").write_text(
        f'version = 1\n[vault]\naddress = "unix:///vault.sock"\nmount = "{system.vault.settings.mount}"\n'
        '[roles.server]\nrole_id_file = "role_id"\nsecret_id_file = "secret_id"\n'
    )
    for name in ("role_id", "secret_id"):
        (tmp_path / name).write_text((system.home / "roles/server" / name).read_text())
    tmp_path.chmod(0o755)
    for name in ("broker.toml", "role_id", "secret_id"):
        (tmp_path / name).chmod(0o644)  # the umask of a run may close them
    ran("runc", "spec", "--bundle", tmp_path)
    spec = json.loads((tmp_path / "config.json").read_text())
    spec["root"] = {"path": str(image.root), "readonly": True}
    user = int(image.settings["User"].partition(":")[0])
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": user, "gid": user},
        "args": [*image.settings["Entrypoint"], "serve", "--listen", f"127.0.0.1:{port}", "--health", ""],
        "env": image.settings["Env"],
        "capabilities": {},
        "cwd": "/",
    }
    spec["mounts"] += [
        {"destination": there, "type": "bind", "source": str(here), "options": ["bind", "ro"]}
        for there, here in (("/etc/credential-broker", tmp_path), ("/vault.sock", socket))
    ]
    spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "network"]
    (tmp_path / "config.json").write_text(json.dumps(spec))
    name = f"broker-test-{port}"
    state = ("runc", "--root", tmp_path / "state")
    with subprocess.Popen([*state, "run", "--bundle", tmp_path, name], stderr=subprocess.PIPE) as container:
        try:
            assert container.stderr
            line = container.stderr.readline().decode()
            assert re.match(r"listening on ", line), line + container.stderr.read().decode()
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/bundles", json=ASKED, headers=token, trust_env=False)
            assert answer.json()["secrets"] == {"password": PASSWORD}
        finally:
            ran(*state, "kill", name, "TERM")
        assert container.wait(60) == 0
