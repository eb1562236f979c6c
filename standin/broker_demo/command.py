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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from broker.cli.output import note, show_table, styled
from broker_demo.runner import Demo, DemoError

LOGIN: Final = "MZP0000001"
PASSWORD: Final = "not-a-real-password"  # noqa: S105  # made up, for the stand-in
LEASE: Final = 10  # seconds
_PATIENCE: Final = 20.0  # seconds
CONFIG: Final = 'version = 1\n\n[embedded]\ndirectory = "vault"\n'


@click.command("demo", epilog="Example: broker demo --keep")
@click.option("--keep", is_flag=True, help="Keep vault, partner and files afterwards.")
def command(keep: bool) -> None:
    """Run the whole life cycle in a temporary directory: from an empty vault to a fetched fleet list.

    It takes half a minute. Everything is real except the partner, which is the stand-in. Ctrl-C cleans up.
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
    holder = _bundle(demo)
    _calls(demo, partner["api_url"])
    _end_of_lease(demo, holder)


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
    demo.title("A signing request: the key is stored in the vault before the CSR is shown")
    demo.run("broker", "csr", "new", "acme", "--out", "acme.csr")
    demo.run("broker", "csr", "lint", "acme.csr", "--login", LOGIN)
    demo.run("broker", "csr", "submit", "acme", "--out", "acme.eml")
    demo.run("broker", "status")


def _reply(demo: Demo, desk: str) -> None:
    demo.title("The partner's people sign it (in days, usually), and the reply is imported")
    _post(demo, f"{desk}/desk/requests?reply=zip")
    demo.say("The partner's CA is not accepted yet, so the import is refused:")
    demo.run("broker", "cert", "import", "acme", "reply.zip", expect=6)
    demo.say("The partner reads out the fingerprints on the telephone. They match, and are accepted:")
    found = demo.read("partner/standin.json")
    accept = ("--accept-ca", str(found["issuing_ca_sha256"]), "--accept-ca", str(found["server_ca_sha256"]))
    demo.run("broker", "cert", "import", "acme", "reply.zip", *accept, "--client-id-for", "reporting")


def _post(demo: Demo, url: str) -> None:
    """Send the mail to the desk as a mail server would, by curl if it is installed."""
    command = ("curl", "-sS", "--data-binary", "@acme.eml", "-o", "reply.zip", url)
    if shutil.which("curl"):
        demo.run(*command)
        return
    demo.show(*command)
    request = urllib.request.Request(url, (demo.directory / "acme.eml").read_bytes())  # noqa: S310  # loopback
    past_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with past_proxies.open(request, timeout=10) as answer:
        (demo.directory / "reply.zip").write_bytes(answer.read())


def _promotion(demo: Demo) -> None:
    demo.title("The canary: one harmless real request. Only a set that the partner accepts becomes current")
    demo.run("broker", "rotation", "canary", "acme", "--generation", "1")
    demo.run("broker", "rotation", "promote", "acme")
    demo.run("broker", "rotation", "status", "acme")


def _bundle(demo: Demo) -> subprocess.Popen[bytes]:
    demo.title("A consumer fetches a direct bundle for some seconds, with a token that can do nothing else")
    demo.run("broker", "vault", "enrol", "reporting", "--right", "acme/reporting", "--token-file", "reporting.token")
    holder = demo.start(
        "broker", "bundle", "get", "acme/reporting", "--consumer-token-file", "reporting.token", "--to", "bundle",
        "--format", "curl.conf", "--ttl", f"{LEASE}s", "--hold",
    )  # fmt: skip
    demo.wait_for("bundle/current/manifest.json", holder)
    demo.run("ls", "bundle/current/")
    return holder


def _calls(demo: Demo, api: str) -> None:
    demo.title("Real calls with the bundle: curl, and Python's requests")
    if shutil.which("curl"):
        text = demo.run("curl", "-sS", "-K", "bundle/current/curl.conf", f"{api}/fleets", quiet=True)
        fleets = json.loads(text)["_embedded"]["fleets"]
        show_table(["fleet", "name", "vehicles"], [(f["id"], f["name"], f["vehicles"]) for f in fleets])
    else:
        demo.say("curl is not installed, so only requests is used")
    _python(demo)


def _python(demo: Demo) -> None:
    from broker import client

    for line in (
        'session = broker.client.open("bundle")',
        'fleet = session.get("/fleets").json()["_embedded"]["fleets"][0]',
        "session.get(f\"/fleets/{fleet['id']}/vehicles\", params={'pageSize': 5})",
    ):
        click.echo(styled(f"   >>> {line}", fg="cyan"))
    with client.open(demo.directory / "bundle") as session:
        fleet = session.get("/fleets").json()["_embedded"]["fleets"][0]
        vehicles = session.get(f"/fleets/{fleet['id']}/vehicles", params={"pageSize": 5}).json()
    found = vehicles["_embedded"]["vehicles"]
    show_table(["vehicle", "VIN", "brand"], [(v["id"], v.get("vin"), v.get("brand")) for v in found])
    demo.say(f"{len(found)} of the {vehicles['total']} vehicles of fleet {fleet['name']}")


def _end_of_lease(demo: Demo, holder: subprocess.Popen[bytes]) -> None:
    demo.title("The lease ends: the files are removed, the evidence stays")
    until = time.monotonic() + LEASE + 10
    while holder.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    if (demo.directory / "bundle" / "current").exists():
        raise DemoError(f"the bundle is still there at {datetime.now(UTC):%TZ}")
    if not demo.run("ls", "-A", "bundle"):
        demo.say("(nothing)")
    demo.run("broker", "evidence", "show", "--all", cut=True)
    demo.run("broker", "evidence", "anchor")
    demo.run("broker", "evidence", "verify", "--all")


def _say_how_to_go_on(demo: Demo) -> None:
    ours = Path(sys.argv[0]).absolute()  # an absolute path, since the user changes directory first
    broker = "broker" if shutil.which("broker") else shlex.quote(str(ours))
    here, pid = shlex.quote(str(demo.directory)), demo.read("partner/standin.json")["pid"]
    note(f"\nEverything is kept in {demo.directory}. Continue with:")
    note(f"  cd {here}")
    note(f"  {broker} status")
    note("and to remove it:")
    note(f"  {broker} vault stop; kill {pid}; cd /; rm -r {here}")
