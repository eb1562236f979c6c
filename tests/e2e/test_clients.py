"""Programs that know nothing of us fetch the fleets with what `broker bundle get` publishes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
from partner_standin import Standin

from broker import client
from broker.embedded.up import Embedded
from broker.vault.connection import Connection
from tests.support.clients import STORES, WAYS, Published, Way, jks
from tests.support.system import LOGIN, PASSWORD, System, made_system
from tests.support.vault import mounted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def promoted(vault_server: tuple[Embedded, Connection], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a current generation, for all programs of this module."""
    with (
        Standin(tmp_path_factory.mktemp("partner"), accounts={LOGIN: PASSWORD}) as partner,
        mounted(vault_server) as vault,
        made_system(vault, partner) as system,
    ):
        system.promoted()
        yield system
        assert partner.crashes == ()


@pytest.fixture(scope="module")
def published(promoted: System) -> Published:
    """A bundle with every file, which all programs read."""
    token = promoted.consumer("acme/reporting", name="reader-of-everything")
    options = [part for file in STORES for part in ("--format", file.value)]
    root = promoted.home / "bundle"
    promoted.ok("bundle", "get", "acme/reporting", "--consumer-token-file", str(token), "--to", str(root), *options)
    (promoted.home / "scratch").mkdir()
    fleets = f"{promoted.partner.api_url}/fleets"
    return Published((root / "current").resolve(), fleets, promoted.home / "scratch")


def named(way: Way) -> str:
    return f"{way.client}: {' '.join(file.value for file in way.files)}"


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.peer(*way.programs), id=named(way)) for way in WAYS]
)
def test_client_fetches_the_fleets(published: Published, way: Way) -> None:
    assert json.loads(way.fetch(published))["_embedded"]["fleets"]


@pytest.mark.peer("java")
@pytest.mark.peer("keytool")
def test_java_by_a_converted_jks(promoted: System, published: Published) -> None:
    """JKS is written by keytool alone, with the command that `bundle get --format keystore.jks` prints."""
    refused = promoted.run(
        "bundle", "get", "acme/reporting", "--consumer-token-file", "none", "--format", "keystore.jks"
    )
    assert refused.code == 2
    conversion = re.search(r"keytool -importkeystore .*", refused.err)
    assert conversion
    command = conversion.group().replace("DIR", str(published.directory.parent))
    subprocess.run(["sh", "-ec", command], cwd=published.directory, check=True, capture_output=True)
    assert json.loads(jks(published))["_embedded"]["fleets"]


def test_session_pages_to_the_end_of_a_fleet(published: Published) -> None:
    with client.open(published.directory.parent) as session:
        fleet = session.get("/fleets").json()["_embedded"]["fleets"][0]
        pages = list(session.pages(f"/fleets/{fleet['id']}/vehicles"))
    assert sum(len(page["_embedded"]["vehicles"]) for page in pages) == fleet["vehicles"]
