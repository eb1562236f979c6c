"""The whole job, against a vault and a partner of its own, each step with the command that a person would type."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from broker.cli.output import note, show_table, styled
from broker.cli.stage import Stage, StageError

__all__ = ["command"]

LOGIN: Final = "MZP0000001"
PASSWORD: Final = "not-a-real-password"  # noqa: S105  # of a partner that lives for half a minute
LEASE: Final = 10  # seconds
_PATIENCE: Final = 20.0  # seconds
CONFIG: Final = 'version = 1\n\n[embedded]\ndirectory = "vault"\n'


@click.command("demo", epilog="Example: broker demo --keep")
@click.option("--keep", is_flag=True, help="Leave vault, partner and files for you to play with.")
def command(keep: bool) -> None:
    """Run the main job in a directory of its own: from an empty vault to a fetched fleet list, in half a minute.

    Everything is real but the partner, which is the stand-in. Ctrl-C cleans up.
    """
    stage = Stage()
    kept = False
    try:
        _play(stage, keep=keep)
        kept = keep
    finally:
        if kept:
            _say_how_to_go_on(stage)
        else:
            stage.close()
    if not kept:
        note("\ndone: processes ended, files removed. Again with --keep, it leaves all of it for you.")


def _play(stage: Stage, *, keep: bool) -> None:
    (stage.directory / "broker.toml").write_text(CONFIG)
    (stage.directory / "password.txt").write_text(PASSWORD)
    (stage.directory / "password.txt").chmod(0o600)
    _vault(stage, keep=keep)
    partner = _partner(stage, keep=keep)
    _account(stage, partner["api_url"])
    _request(stage)
    _reply(stage, partner["desk_url"])
    _promotion(stage)
    holder = _bundle(stage)
    _calls(stage, partner["api_url"])
    _end_of_lease(stage, holder)


def _vault(stage: Stage, *, keep: bool) -> None:
    stage.title("A vault on this machine: OpenBao, initialised, unsealed and set up")
    from broker.embedded.server import Lifetime
    from broker.embedded.up import up

    stage.show("broker", "vault", "start")
    directory = stage.directory / "vault"
    stage.on_close(lambda: _stopped(directory))  # also one that is still coming up
    up(directory, lifetime=Lifetime.DETACHED if keep else Lifetime.TIED)  # tied: it ends with us, even if we are killed
    stage.run("broker", "vault", "status")


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


def _partner(stage: Stage, *, keep: bool) -> dict[str, Any]:
    stage.title("A partner to practise with: a CSR desk, and the Fleet Owner API over mTLS")
    command = ("broker-standin", "serve", "--dir", "partner", "--account", f"{LOGIN}:password.txt")
    process = stage.start(*command, outlives=keep)
    stage.wait_for("partner/standin.json", process)
    found = dict(stage.read("partner/standin.json"))
    stage.say(f"API {found['api_url']}, desk {found['desk_url']}")
    return found


def _account(stage: Stage, api: str) -> None:
    stage.title("An account, its password, and an application that will use it")
    subject = ("C=FR", "ST=Ile-de-France", "L=Paris", "O=Société Exemple", "emailAddress=fleet@exemple.example")
    stage.run(
        "broker", "account", "add", "acme", "--environment", "stand-in", "--base-url", api, "--login", LOGIN,
        *(part for pair in subject for part in ("--subject", pair)), "--contact", "desk@partner.example",
    )  # fmt: skip
    stage.run("broker", "password", "set", "acme", "--password-file", "password.txt")
    stage.run("broker", "app", "add", "acme/reporting")


def _request(stage: Stage) -> None:
    stage.title("A signing request: the key is in the vault before the CSR is shown, and stays there")
    stage.run("broker", "csr", "new", "acme", "--out", "acme.csr")
    stage.run("broker", "csr", "lint", "acme.csr", "--login", LOGIN)
    stage.run("broker", "csr", "submit", "acme", "--out", "acme.eml")
    stage.run("broker", "status")


def _reply(stage: Stage, desk: str) -> None:
    stage.title("The partner's people sign it (days, in real life), and the reply is imported")
    _post(stage, f"{desk}/desk/requests?reply=zip")
    stage.say("Nobody has accepted the partner's CA yet, so the import is refused:")
    stage.run("broker", "cert", "import", "acme", "reply.zip", expect=6)
    stage.say("The partner reads its fingerprints out on the telephone. They are compared, and accepted:")
    found = stage.read("partner/standin.json")
    accept = ("--accept-ca", str(found["issuing_ca_sha256"]), "--accept-ca", str(found["server_ca_sha256"]))
    stage.run("broker", "cert", "import", "acme", "reply.zip", *accept, "--client-id-for", "reporting")


def _post(stage: Stage, url: str) -> None:
    """Send the mail to the desk as a mail server would; by curl where there is one, since that is what people type."""
    command = ("curl", "-sS", "--data-binary", "@acme.eml", "-o", "reply.zip", url)
    if shutil.which("curl"):
        stage.run(*command)
        return
    stage.show(*command)
    request = urllib.request.Request(url, (stage.directory / "acme.eml").read_bytes())  # noqa: S310  # loopback
    past_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with past_proxies.open(request, timeout=10) as answer:
        (stage.directory / "reply.zip").write_bytes(answer.read())


def _promotion(stage: Stage) -> None:
    stage.title("The canary: one harmless real request. Only what the partner accepts becomes current")
    stage.run("broker", "rotation", "canary", "acme", "--generation", "1")
    stage.run("broker", "rotation", "promote", "acme")
    stage.run("broker", "rotation", "status", "acme")


def _bundle(stage: Stage) -> subprocess.Popen[bytes]:
    stage.title("A consumer fetches a direct bundle, for seconds; its token can do nothing else")
    stage.run("broker", "vault", "enrol", "reporting", "--right", "acme/reporting", "--token-file", "reporting.token")
    holder = stage.start(
        "broker", "bundle", "get", "acme/reporting", "--consumer-token-file", "reporting.token", "--to", "bundle",
        "--format", "curl.conf", "--ttl", f"{LEASE}s", "--hold",
    )  # fmt: skip
    stage.wait_for("bundle/current/manifest.json", holder)
    stage.run("ls", "bundle/current/")
    return holder


def _calls(stage: Stage, api: str) -> None:
    stage.title("Real calls with it: curl, and Python's requests")
    if shutil.which("curl"):
        text = stage.run("curl", "-sS", "-K", "bundle/current/curl.conf", f"{api}/fleets", quiet=True)
        fleets = json.loads(text)["_embedded"]["fleets"]
        show_table(["fleet", "name", "vehicles"], [(f["id"], f["name"], f["vehicles"]) for f in fleets])
    else:
        stage.say("curl is not on this machine, so requests does it alone")
    _python(stage)


def _python(stage: Stage) -> None:
    from broker import client

    for line in (
        'session = broker.client.open("bundle")',
        'fleet = session.get("/fleets").json()["_embedded"]["fleets"][0]',
        "session.get(f\"/fleets/{fleet['id']}/vehicles\", params={'pageSize': 5})",
    ):
        click.echo(styled(f"   >>> {line}", fg="cyan"))
    with client.open(stage.directory / "bundle") as session:
        fleet = session.get("/fleets").json()["_embedded"]["fleets"][0]
        vehicles = session.get(f"/fleets/{fleet['id']}/vehicles", params={"pageSize": 5}).json()
    found = vehicles["_embedded"]["vehicles"]
    show_table(["vehicle", "VIN", "brand"], [(v["id"], v.get("vin"), v.get("brand")) for v in found])
    stage.say(f"{len(found)} of the {vehicles['total']} vehicles of fleet {fleet['name']}")


def _end_of_lease(stage: Stage, holder: subprocess.Popen[bytes]) -> None:
    stage.title("The lease runs out: the files are gone, and the evidence stays")
    until = time.monotonic() + LEASE + 10
    while holder.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    if (stage.directory / "bundle" / "current").exists():
        raise StageError(f"the bundle is still there at {datetime.now(UTC):%TZ}")
    if not stage.run("ls", "-A", "bundle"):
        stage.say("(nothing)")
    stage.run("broker", "evidence", "show", "--all", cut=True)
    stage.run("broker", "evidence", "anchor")
    stage.run("broker", "evidence", "verify", "--all")


def _say_how_to_go_on(stage: Stage) -> None:
    ours = Path(sys.argv[0]).absolute()  # from where it is typed, `cd` comes first
    broker = "broker" if shutil.which("broker") else shlex.quote(str(ours))
    here, pid = shlex.quote(str(stage.directory)), stage.read("partner/standin.json")["pid"]
    note(f"\nEverything is left in {stage.directory}. Go on with:")
    note(f"  cd {here}")
    note(f"  {broker} status")
    note("and when you have enough:")
    note(f"  {broker} vault stop; kill {pid}; cd /; rm -r {here}")
