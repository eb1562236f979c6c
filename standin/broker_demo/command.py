"""`broker demo`: the whole life cycle against an embedded vault and the stand-in, with each command shown."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from broker import client
from broker.cli.output import note
from broker_demo.runner import Demo, DemoError, end

LOGIN: Final = "MZP0000001"
PASSWORD: Final = "not-a-real-password"  # noqa: S105  # made up, for the stand-in
LAST_LEASE: Final = "10s"
_PATIENCE: Final = 20.0  # seconds
CONFIG: Final = 'version = 1\n\n[embedded]\ndirectory = "vault"\n'
_TOLD: Final = ("generation", "move", "verdict", "request", "application", "account", "password", "consumer_name")


@click.command("demo", epilog="Example: broker demo --keep")
@click.option("--keep", is_flag=True, help="Keep vault, partner and files afterwards.")
def command(keep: bool) -> None:
    """Run the whole life cycle in a temporary directory: from an empty vault to a renewal and a roll-back.

    It takes less than a minute. Everything is real except the partner, which is the stand-in. Ctrl-C cleans up.
    """
    demo = Demo()
    kept = False
    try:
        _play(demo, keep=keep)
        kept = keep
    finally:
        if kept:
            _say_how_to_go_on(demo)
        else:
            demo.close()
    if not kept:
        note("\ndone: processes ended, files removed. With --keep everything stays.")


def _play(demo: Demo, *, keep: bool) -> None:
    (demo.directory / "broker.toml").write_text(CONFIG)
    (demo.directory / "password.txt").write_text(PASSWORD)
    (demo.directory / "password.txt").chmod(0o600)
    _vault(demo, keep=keep)
    partner = _partner(demo, keep=keep)
    _account(demo, partner["api_url"])
    _request(demo)
    _reply(demo, partner["desk_url"])
    _promotion(demo)
    consumer = Consumer(demo, partner["api_url"])
    consumer.begin()
    consumer.call()
    _renewal(demo, partner["desk_url"])
    demo.title("Promotion: the application follows, without a failed request")
    demo.run("broker", "rotation", "promote", "acme")
    consumer.follow(2)
    demo.title("The new set gives trouble: one command makes the old one current")
    demo.run("broker", "rotation", "rollback", "acme")
    consumer.follow(1, LAST_LEASE)
    demo.run("broker", "rotation", "status", "acme")
    consumer.end()
    _evidence(demo)


def _vault(demo: Demo, *, keep: bool) -> None:
    demo.title("A vault on this machine: OpenBao, initialised, unsealed and set up")
    from broker.embedded.config import Options
    from broker.embedded.up import up

    demo.show("broker", "vault", "start")
    directory = demo.directory / "vault"
    demo.on_close(lambda: _stopped(directory))  # also one that is still coming up
    up(directory, Options(tied=not keep))  # tied: it ends with us, even if we are killed
    demo.run("broker", "vault", "status")


def _stopped(directory: Path) -> None:
    """End the vault of `directory`, and wait until it is gone: it may be so young that it does not listen yet."""
    from broker.embedded.home import Home
    from broker.embedded.server import stop

    until = time.monotonic() + _PATIENCE
    while not stop(directory) and _held(Home(directory).server_lock) and time.monotonic() < until:
        time.sleep(0.02)


def _held(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _partner(demo: Demo, *, keep: bool) -> dict[str, Any]:
    demo.title("The partner stand-in: a CSR desk, and the Fleet Owner API over mTLS")
    command = ("partner-standin", "serve", "--dir", "partner", "--account", f"{LOGIN}:password.txt")
    process = demo.start(*command, outlives=keep)
    demo.wait_for("partner/standin.json", process)
    found = dict(demo.read("partner/standin.json"))
    demo.say(f"API {found['api_url']}, desk {found['desk_url']}")
    return found


def _account(demo: Demo, api: str) -> None:
    demo.title("An account, its password, and an application that will use it")
    subject = ("C=FR", "ST=Ile-de-France", "L=Paris", "O=Société Exemple", "emailAddress=fleet@exemple.example")
    demo.run(
        "broker", "account", "add", "acme", "--environment", "stand-in", "--base-url", api, "--login", LOGIN,
        *(part for pair in subject for part in ("--subject", pair)), "--contact", "desk@partner.example",
    )  # fmt: skip
    demo.run("broker", "password", "set", "acme", "--password-file", "password.txt")
    demo.run("broker", "app", "add", "acme/reporting")


def _request(demo: Demo) -> None:
    demo.title("A signing request: its key is in the vault before the CSR is shown")
    demo.run("broker", "csr", "new", "acme", "--out", "acme.csr")
    demo.run("broker", "csr", "lint", "acme.csr", "--login", LOGIN)
    demo.run("broker", "csr", "submit", "acme", "--out", "acme.eml")
    demo.run("broker", "status")


def _reply(demo: Demo, desk: str) -> None:
    demo.title("The partner signs it (in days, usually), and the reply is imported")
    demo.say("This certificate lasts 14 days only, so that its renewal is due in this demo.")
    _post(demo, f"{desk}/desk/requests?reply=zip&lifetime=14d", "acme")
    demo.say("The partner's CA is not accepted yet, so the import is refused:")
    demo.run("broker", "cert", "import", "acme", "acme.zip", expect=6)
    demo.say("The partner reads out the fingerprints on the telephone. They match:")
    found = demo.read("partner/standin.json")
    accept = ("--accept-ca", str(found["issuing_ca_sha256"]), "--accept-ca", str(found["server_ca_sha256"]))
    demo.run("broker", "cert", "import", "acme", "acme.zip", *accept, "--client-id-for", "reporting")


def _post(demo: Demo, url: str, name: str) -> None:
    """Send the mail to the desk as a mail server would, by curl if it is installed."""
    command = ("curl", "-sS", "--data-binary", f"@{name}.eml", "-o", f"{name}.zip", url)
    if shutil.which("curl"):
        demo.run(*command)
        return
    demo.show(*command)
    request = urllib.request.Request(url, (demo.directory / f"{name}.eml").read_bytes())  # noqa: S310  # loopback
    past_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with past_proxies.open(request, timeout=10) as answer:
        (demo.directory / f"{name}.zip").write_bytes(answer.read())


def _promotion(demo: Demo) -> None:
    demo.title("The canary, one harmless real request; then the set becomes current")
    demo.run("broker", "rotation", "canary", "acme", "--generation", "1")
    demo.run("broker", "rotation", "promote", "acme")
    demo.run("broker", "rotation", "status", "acme")


def _renewal(demo: Demo, desk: str) -> None:
    demo.title("Renewal is due: a new key and certificate, while the old ones work")
    demo.run("broker", "status")
    demo.run("broker", "csr", "new", "acme", "--out", "renewal.csr")
    demo.run("broker", "csr", "submit", "acme", "--out", "renewal.eml")
    _post(demo, f"{desk}/desk/requests?reply=zip", "renewal")
    demo.run("broker", "cert", "import", "acme", "renewal.zip")


class Consumer:
    """An application: it holds a bundle, and calls the partner through one session from first to last."""

    def __init__(self, demo: Demo, api: str) -> None:
        self._demo = demo
        self._api = api
        self._generation = 1
        self._session: client.Session
        self._holder: subprocess.Popen[bytes]

    def begin(self) -> None:
        """Enrol the application, and fetch its first bundle."""
        demo = self._demo
        demo.title("An application fetches a bundle, with a token that can do only that")
        rights = ("--right", "acme/reporting", "--token-file", "reporting.token")
        demo.run("broker", "vault", "enrol", "reporting", *rights)
        self._holder = self._fetch(self._generation, "10m")
        demo.run("ls", "-m", "bundle/current/")

    def call(self) -> None:
        """Fetch fleets with curl, and vehicles with Python."""
        demo = self._demo
        demo.title("Real calls with the bundle: curl, and Python's requests")
        if shutil.which("curl"):
            command = ("curl", "-sS", f"{self._api}/fleets", "-K", "bundle/current/curl.conf")
            fleets = json.loads(demo.run(*command, quiet=True))["_embedded"]["fleets"]
            demo.table(["fleet", "name", "vehicles"], [(f["id"], f["name"], f["vehicles"]) for f in fleets])
        else:
            demo.say("curl is not installed, so only requests is used")
        demo.type('session = broker.client.open("bundle")')
        demo.type('fleet = session.get("/fleets").json()["_embedded"]["fleets"][0]')
        demo.type("session.get(f\"/fleets/{fleet['id']}/vehicles\")")
        self._session = client.open(demo.directory / "bundle")
        demo.on_close(self._session.close)
        fleet = self._session.get("/fleets").json()["_embedded"]["fleets"][0]
        vehicles = self._session.get(f"/fleets/{fleet['id']}/vehicles", params={"pageSize": 3}).json()
        found = vehicles["_embedded"]["vehicles"]
        demo.table(["vehicle", "VIN", "brand"], [(v["id"], v.get("vin"), v.get("brand")) for v in found])
        demo.say(f"{len(found)} of the {vehicles['total']} vehicles of fleet {fleet['name']}")

    def follow(self, generation: int, ttl: str = "10m") -> None:
        """Fetch the next bundle into the same directory: the session uses it in its next request."""
        before, self._holder = self._holder, self._fetch(generation, ttl)
        self._demo.show("kill", "%1")
        end(before)
        self._demo.type('session.get("/fleets").status_code, session.manifest.generation')
        until = time.monotonic() + _PATIENCE
        answer = self._answer()
        while answer == (200, self._generation) and time.monotonic() < until:  # it looks once a second
            time.sleep(0.1)
            answer = self._answer()
        self._demo.say(str(answer))
        if answer != (200, generation):
            raise DemoError(f"the session did not follow to generation {generation}")
        self._generation = generation

    def end(self) -> None:
        """Wait for the end of the last lease."""
        demo = self._demo
        demo.title("The lease ends, and the files are removed")
        with suppress(subprocess.TimeoutExpired):
            self._holder.wait(_PATIENCE)
        if (demo.directory / "bundle" / "current").exists():
            raise DemoError(f"the bundle is still there at {datetime.now(UTC):%TZ}")
        if not demo.run("ls", "-A", "bundle"):
            demo.say("(nothing)")

    def _answer(self) -> tuple[int, int]:
        return self._session.get("/fleets").status_code, self._session.manifest.generation

    def _fetch(self, generation: int, ttl: str) -> subprocess.Popen[bytes]:
        holder = self._demo.start(
            "broker", "bundle", "get", "acme/reporting", "--consumer-token-file", "reporting.token", "--to", "bundle",
            "--format", "curl.conf", "--ttl", ttl, "--hold",
        )  # fmt: skip
        link = self._demo.directory / "bundle" / "current"
        self._demo.wait(
            lambda: link.is_symlink() and link.readlink().name == f"gen-{generation:06d}", holder, str(link)
        )
        return holder


def _evidence(demo: Demo) -> None:
    demo.title("The evidence stays: each change, try and bundle; and it verifies")
    shown = json.loads(demo.run("broker", "evidence", "show", "--all", "-o", "json", quiet=True))
    demo.table(
        ["time", "entry", "what", "facts, shortened"],
        [(e["at"][11:19], f"{e['chain'].split('/')[0]} {e['number']}", e["what"], _told(e["facts"])) for e in shown],
    )
    demo.run("broker", "evidence", "anchor")
    demo.run("broker", "evidence", "verify", "--all")


def _told(facts: Mapping[str, object]) -> str:
    return " ".join(f"{name}={facts[name]}" for name in _TOLD if name in facts)


def _say_how_to_go_on(demo: Demo) -> None:
    ours = Path(sys.argv[0]).absolute()  # an absolute path, since the user changes directory first
    broker = "broker" if shutil.which("broker") else shlex.quote(str(ours))
    here, pid = shlex.quote(str(demo.directory)), demo.read("partner/standin.json")["pid"]
    note(f"\nEverything is kept in {demo.directory}. Continue with:")
    note(f"  cd {here}")
    note(f"  {broker} status")
    note("and to remove it:")
    note(f"  {broker} vault stop; kill {pid}; cd /; rm -r {here}")
