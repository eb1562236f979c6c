"""A bundle at a path of a KV mount of another Vault: claimed, marked, never anybody else's, and gone at the end."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from broker.agent.kv import KvOutput
from broker.compose.kv import kv_output
from broker.copies import replace
from broker.embedded.up import Embedded
from broker.errors import BrokerError, InputError
from broker.model.bundle import Bundle
from broker.model.clock import system_clock
from broker.vault.connection import Connection, Phase
from broker.vault.errors import Document, MissingError
from broker.vault.kv_place import MARK, KvPlace
from broker.vault.logins import FixedToken
from tests.support.console import inside
from tests.support.credential_sets import PASSWORD, paper
from tests.support.sources import ROOT
from tests.support.vault import token_of

pytestmark = pytest.mark.slow
NAME: Final = "mzp-1/reports"
POLICY: Final = re.findall(
    r"^```hcl\n(.*?)^```$", (ROOT / "docs/kv-output.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)[0]
PATH: Final = "apps/reporting/partner"
_numbers: Final = count(1)


class Killed(BaseException):
    """The process ended here."""


@dataclass
class World:
    """A KV mount, and who may do what there. `admin` may do everything."""

    admin: Connection
    mount: str

    @property
    def path(self) -> str:
        return f"{self.mount}/{PATH}"

    def output(self, holder: str = "web-1:/run/a", name: str = NAME, observer: Any = None, path: str = "") -> KvOutput:
        """Return an output of an agent whose login has the policy of the page."""
        token = token_of(self.admin, policies=["default", self.policy(POLICY)], no_parent=True)
        more = {"observer": observer} if observer else {}
        vault = Connection(replace(self.admin.settings, patience=3), FixedToken(token), holder="[bundles.kv]", **more)
        return KvOutput(KvPlace(vault, path or self.path), name, holder, system_clock)

    def policy(self, text: str) -> str:
        self.admin.call("POST", f"sys/policies/acl/{self.mount}", {"policy": text.replace("secret/", f"{self.mount}/")})
        return self.mount

    def data(self, version: int = 0) -> dict[str, str] | None:
        try:
            query = {"version": version} if version else None
            found: dict[str, str] = self.admin.ask("GET", f"{self.mount}/data/{PATH}", query)["data"]["data"]
        except MissingError:
            return None
        return found

    def metadata(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.admin.ask("GET", f"{self.mount}/metadata/{PATH}")["data"]
        except MissingError:
            return None
        return found

    def put(self, **data: str) -> None:
        self.admin.call("POST", f"{self.mount}/data/{PATH}", {"data": data, "options": {"cas": self.version}})

    @property
    def version(self) -> int:
        found = self.metadata()
        return found["current_version"] if found else 0


@pytest.fixture
def world(vault_server: tuple[Embedded, Connection]) -> Iterator[World]:
    _, admin = vault_server
    made = World(admin, f"team-{next(_numbers)}")
    admin.call("POST", f"sys/mounts/{made.mount}", {"type": "kv", "options": {"version": "2"}})
    admin.ask("GET", f"{made.mount}/config")  # a new mount needs a moment
    yield made
    admin.call("DELETE", f"sys/mounts/{made.mount}")


def bundle(generation: int = 1, **changes: Any) -> Bundle:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    return replace(paper(generation=generation), **{"expires": expires, **changes})


def refused(act: Callable[[], object], kind: type[BrokerError] = InputError) -> BrokerError:
    with pytest.raises(kind) as caught:
        act()
    assert PASSWORD not in f"{caught.value}{caught.value.hint}"
    return caught.value


def test_a_bundle_is_kept_as_parts(world: World) -> None:
    made = bundle()
    world.output().write(made)
    data, about = world.data(), world.metadata()
    assert data
    assert about
    assert data["password"] == PASSWORD
    assert data["tls.key"].startswith("-----BEGIN PRIVATE KEY-----")
    assert (data["generation"], data["base_url"], data["holder"]) == ("1", made.base_url, "web-1:/run/a")
    assert (about["max_versions"], about["cas_required"]) == (1, True)
    assert about["custom_metadata"] == {MARK: NAME}


def test_bounds_come_before_the_first_secret(world: World) -> None:
    seen: list[str] = []

    def observe(phase: Phase, path: str) -> None:
        if phase is Phase.BEFORE and path.startswith(f"{world.mount}/data/") and world.metadata():
            about = world.metadata()
            assert about
            seen.append(str(about["max_versions"]))

    world.output(observer=observe).write(bundle())
    assert seen == ["1"]


def test_a_rotation_removes_the_older_bytes(world: World) -> None:
    output = world.output()
    output.write(bundle(1))
    first = world.version
    output.write(bundle(2))
    assert (world.data() or {})["generation"] == "2"
    assert [world.data(number) for number in range(1, first + 1)] == [None] * first
    assert list((world.metadata() or {})["versions"]) == [str(world.version)], "Vault knows of no older data"


def test_a_bundle_that_is_there_is_not_written(world: World) -> None:
    made = bundle()
    world.output().write(made)
    before = world.version
    world.output().write(made)  # another process, after a restart
    assert world.version == before


def test_everything_is_destroyed_at_the_end(world: World) -> None:
    destroyed: list[object] = []

    def observe(phase: Phase, path: str) -> None:
        if phase is Phase.BEFORE and path == f"{world.mount}/metadata/{PATH}" and destroyed is not None:
            about = world.metadata()
            destroyed.append(about and [one["destroyed"] for one in about["versions"].values()])

    output = world.output(observer=observe)
    output.write(bundle(1))
    output.write(bundle(2))
    last = world.version
    destroyed.clear()
    output.remove()
    assert destroyed == [[True]], "not only marked as deleted"
    assert world.metadata() is None
    assert [world.data(number) for number in range(1, last + 1)] == [None] * last
    output.remove()
    output.write(bundle(3))
    assert (world.data() or {})["generation"] == "3"


def test_vault_ends_the_data_with_the_lease(world: World) -> None:
    """Even if this process is gone: readers get nothing, and another agent may have the path."""
    world.output().write(bundle(expires=datetime.now(UTC) - timedelta(minutes=1)))
    until = threading.Event()
    while world.data() is not None:
        until.wait(0.05)
    other = world.output(holder="web-2:/run/a")
    other.write(bundle(2))
    assert (world.data() or {})["holder"] == "web-2:/run/a"


def test_a_path_of_others_is_refused(world: World) -> None:
    world.put(theirs="kept")
    about = world.metadata()
    output = world.output()
    assert "the broker did not make it" in refused(lambda: output.write(bundle())).message
    output.remove()
    assert world.data() == {"theirs": "kept"}
    assert world.metadata() == about


def test_a_path_with_metadata_alone_is_refused(world: World) -> None:
    world.admin.call("POST", f"{world.mount}/metadata/{PATH}", {"max_versions": 7})
    output = world.output()
    refused(lambda: output.write(bundle()))
    output.remove()
    assert (world.metadata() or {})["max_versions"] == 7


def test_a_path_of_another_bundle_is_refused(world: World) -> None:
    world.output(name="mzp-2/web").write(bundle())
    output = world.output()
    assert "has the bundle of mzp-2/web" in refused(lambda: output.write(bundle())).message
    output.remove()
    assert world.data()


def test_a_second_agent_is_refused(world: World) -> None:
    first, second = world.output(), world.output(holder="web-2:/run/a")
    first.write(bundle())
    error = refused(lambda: second.write(bundle()))
    assert "is kept by another agent: web-1:/run/a" in error.message
    second.remove()
    assert world.data()
    first.remove()
    second.write(bundle())


def test_what_others_wrote_meanwhile_stays(world: World) -> None:
    output = world.output()
    output.write(bundle())
    world.put(theirs="kept")
    assert "was changed by others" in refused(lambda: output.write(bundle(2))).message
    output.remove()
    assert world.data() == {"theirs": "kept"}


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_write_of_others_in_between(world: World, write: int) -> None:
    """Between two of our requests, whichever: ours is not stored, theirs stays."""
    writes = count(1)

    def observe(phase: Phase, _: str) -> None:
        if phase is Phase.BEFORE and next(writes) == write:
            world.put(theirs="kept")

    output = world.output(observer=observe)
    assert "was changed meanwhile" in refused(lambda: output.write(bundle())).message
    output.remove()
    assert world.data() == {"theirs": "kept"}


def test_a_lost_answer_is_no_conflict(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write whose answer was lost is sent again, and meets itself."""
    output, call = world.output(), Connection.call

    def twice(self: Connection, method: str, path: str, body: Document | None = None) -> Document:
        call(self, method, path, body)
        return call(self, method, path, body)

    monkeypatch.setattr(Connection, "call", twice)
    output.write(bundle())
    assert world.data()
    output.remove()
    assert world.metadata() is None


def test_two_agents_at_once(world: World) -> None:
    """One has the path, and its data is whole; the other is refused."""
    start = threading.Barrier(2)
    came: dict[str, BrokerError | None] = {}

    def run(holder: str) -> None:
        output = world.output(holder=holder)
        start.wait()
        try:
            output.write(bundle())
            came[holder] = None
        except BrokerError as error:
            came[holder] = error

    threads = [threading.Thread(target=run, args=(holder,)) for holder in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [holder for holder, error in came.items() if error is None]
    assert (world.data() or {})["holder"] == winner


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("write", [1, 2, 3])
def test_what_a_kill_left_is_removed(world: World, write: int, phase: Phase) -> None:
    """Killed before or after the claim, the mark, the data: the next start writes, or destroys."""
    for after in ("write", "remove"):
        writes = count(1)

        def observe(at: Phase, _: str, writes: Iterator[int] = writes) -> None:
            if at is phase and next(writes) == write:
                raise Killed

        with pytest.raises(Killed):
            world.output(observer=observe).write(bundle())
        if after == "write":
            world.output().write(bundle(2))
            assert (world.data() or {})["generation"] == "2"
        world.output().remove()
        assert world.metadata() is None


@pytest.mark.parametrize("write", [1, 2])
def test_a_kill_while_it_is_removed(world: World, write: int) -> None:
    world.output().write(bundle())
    writes = count(1)

    def observe(phase: Phase, _: str) -> None:
        if phase is Phase.AFTER and next(writes) == write:
            raise Killed

    with pytest.raises(Killed):
        world.output(observer=observe).remove()
    world.output().remove()
    assert world.metadata() is None


def test_a_right_that_is_lost_midway(world: World) -> None:
    """It says which; the data ends with the lease, and an agent with the right removes it."""
    output = world.output()
    output.write(bundle())
    world.policy('path "secret/metadata/*" { capabilities = ["read"] }')
    for act in (lambda: output.write(bundle(2)), output.remove):
        error = refused(act)
        assert f"[bundles.kv] lacks read on {world.mount}/data/{PATH}" in error.message
        assert error.hint == "docs/kv-output.md has the policy of its login"
    about = world.metadata()
    assert about
    assert about["versions"][str(world.version)]["deletion_time"]
    world.output().remove()
    assert world.metadata() is None


def test_a_mount_of_the_broker_is_refused(world: World) -> None:
    """By its description; an adopted one by its accounts."""
    output = world.output()
    world.admin.call("POST", f"{world.mount}/data/accounts/acme", {"data": {}})
    assert "has accounts of the broker" in refused(lambda: output.write(bundle())).message
    world.admin.call("POST", f"sys/mounts/{world.mount}/tune", {"description": "credential broker"})
    output = world.output()
    assert "is a mount of the broker" in refused(lambda: output.write(bundle())).message
    assert world.metadata() is None


def test_a_mount_that_cannot_be_seen_is_refused(world: World) -> None:
    """It might be one that the broker has adopted."""
    world.admin.call("POST", f"{world.mount}/data/accounts/acme", {"data": {}})
    output = world.output()
    world.policy("\n".join(line for line in POLICY.splitlines() if '"list"' not in line))
    error = refused(lambda: output.write(bundle()))
    assert f"lacks list on {world.mount}/metadata" in error.message
    assert error.hint == "docs/kv-output.md has the policy of its login"
    assert world.metadata() is None


def test_only_kv_v2_is_used(world: World) -> None:
    world.policy('path "*" { capabilities = ["read", "update"] }')
    output = world.output(path="cubbyhole/partner")
    assert "not in a mount of KV v2" in refused(lambda: output.write(bundle())).message
    refused(lambda: world.output(path="nowhere/partner").write(bundle()))


@pytest.mark.parametrize("path", ["secret", "/secret/x", "secret/../x", "secret//x", "secret/x y", "secret/data/\n"])
def test_paths_that_are_none(path: str) -> None:
    refused(lambda: configured(path=path))


def configured(base: Path = Path("/etc/app"), /, **changes: object) -> KvOutput:
    table: dict[str, object] = {
        "address": "https://vault.example",
        "path": "secret/x",
        "login": {"method": "token", "file": "t"},
    }
    return kv_output({**table, **changes}, NAME, Path("/run/a"), base, system_clock)


@pytest.mark.parametrize(
    "change",
    [
        {"address": "http://vault.example"},
        {"address": 1},
        {"address": "https://user:secret@vault.example"},
        {"more": ""},
        {"login": {}},
        {"login": {"method": "approle"}},
        {"login": {"method": "magic"}},
        {"login": {"method": "token"}},
    ],
)
def test_tables_that_are_wrong(change: dict[str, object]) -> None:
    assert refused(lambda: configured(**change)).message.startswith(f"[bundles.kv] of {NAME}: ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", ""),
        ('path = "secret"', "[bundles.kv] of mzp-1/reports: 'secret' is not MOUNT/PATH of a KV secret"),
        ("max_versions = 5", "[bundles.kv] of mzp-1/reports: Object contains unknown field `max_versions`"),
    ],
)
def test_config_check_reads_the_table(tmp_path: Path, line: str, said: str) -> None:
    path = "" if line.startswith("path") else 'path = "secret/apps/a"'
    bundles = f'[[bundles]]\napplication = "{NAME}"\n[bundles.kv]\naddress = "https://vault.example"\n{path}\n{line}'
    login = '[bundles.kv.login]\nmethod = "token"\nfile = "token"'
    (tmp_path / "broker.toml").write_text(f"version = 1\n{bundles}\n{login}\n")
    (tmp_path / "jwt").write_text("jwt")
    service = {"BROKER_ADDR": "https://broker.example", "BROKER_AUTH": f"jwt-file:{tmp_path}/jwt"}
    ended = inside(["config", "check"], home=tmp_path, environment=service)
    assert (ended.code, said in ended.err) == (2 if said else 0, True), ended.err


def test_it_logs_in_by_itself(world: World, tmp_path: Path, vault_server: tuple[Embedded, Connection]) -> None:
    """With an AppRole of its own; the token is revoked at the end."""
    admin = world.admin
    mount = f"logins-{world.mount}"
    admin.call("POST", f"sys/auth/{mount}", {"type": "approle"})
    role = f"auth/{mount}/role/app"
    admin.call("POST", role, {"token_policies": [world.policy(POLICY)]})
    (tmp_path / "role_id").write_text(admin.ask("GET", f"{role}/role-id")["data"]["role_id"])
    (tmp_path / "secret_id").write_text(admin.call("POST", f"{role}/secret-id")["data"]["secret_id"])
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    login = {"method": "approle", "mount": mount, "role_id_file": "role_id", "secret_id_file": "secret_id"}
    try:
        output = configured(tmp_path, address=admin.settings.address, path=world.path, login=login)
        output.write(bundle())
        assert (world.data() or {})["holder"].endswith(":/run/a")
        assert admin.ask("LIST", "auth/token/accessors")
        output.remove()
        assert world.metadata() is None
    finally:
        admin.call("DELETE", f"sys/auth/{mount}")
