"""`broker demo`: the whole life cycle against an embedded vault and the stand-in, with each command shown."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from broker import client
from broker.cli.output import note
from broker_demo import steps
from broker_demo.runner import Demo, DemoError

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
    steps.prepare(demo)
    steps.vault(demo, keep=keep)
    partner = steps.partner(demo, keep=keep)
    steps.account(demo, partner["api_url"])
    steps.request(demo)
    steps.reply(demo, partner["desk_url"])
    steps.promotion(demo)
    steps.enrolment(demo)
    steps.service(demo, keep=keep)
    consumer = Consumer(demo, partner["api_url"])
    consumer.begin()
    consumer.call()
    _renewal(demo, partner["desk_url"])
    demo.title("Promotion: the application follows, without a failed request")
    demo.run("broker", "rotation", "promote", "acme")
    consumer.follow(2)
    demo.title("The new set gives trouble: one command makes the old one current")
    demo.run("broker", "rotation", "rollback", "acme")
    consumer.follow(1)
    demo.run("broker", "rotation", "status", "acme")
    consumer.end()
    _evidence(demo)


def _renewal(demo: Demo, desk: str) -> None:
    demo.title("Renewal is due: a new key and certificate, while the old ones work")
    demo.run("broker", "status")
    demo.run("broker", "csr", "new", "acme", "--out", "renewal.csr")
    demo.run("broker", "csr", "submit", "acme", "--out", "renewal.eml")
    steps.post(demo, f"{desk}/desk/requests?reply=zip", "renewal")
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
        """Fetch the application's first bundle."""
        demo = self._demo
        demo.title("The application fetches a bundle: one call, with its own token")
        self._holder = demo.start(
            "broker", "bundle", "get", "acme/reporting", "--config", "app.toml", "--to", "bundle",
            "--format", "curl.conf", "--ttl", "10m", "--hold",
        )  # fmt: skip
        self._wait_for(self._generation)
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

    def follow(self, generation: int) -> None:
        """Show that the held files and the open session change to `generation`."""
        demo = self._demo
        demo.say("The service wakes the waiting bundle get, which replaces its files.")
        self._wait_for(generation)
        demo.type('session.get("/fleets").status_code, session.manifest.generation')
        until = time.monotonic() + steps.PATIENCE
        answer = self._answer()
        while answer == (200, self._generation) and time.monotonic() < until:  # it looks once a second
            time.sleep(0.1)
            answer = self._answer()
        demo.say(str(answer))
        if answer != (200, generation):
            raise DemoError(f"the session did not follow to generation {generation}")
        self._generation = generation

    def end(self) -> None:
        """Revoke the lease: its holder hears of that, and removes the files."""
        demo = self._demo
        demo.title("The platform team sees who holds what, and ends it: the files go")
        demo.run("broker", "lease", "list", "acme")
        ended = ("--account", "acme", "--consumer", "credential-broker/reporting", "--reason", "the demo is over")
        demo.run("broker", "lease", "revoke", *ended)
        with suppress(subprocess.TimeoutExpired):
            self._holder.wait(steps.PATIENCE)
        if (demo.directory / "bundle" / "current").exists():
            raise DemoError("the bundle is still there", hint=demo.said_by(self._holder)[-300:])
        if not demo.run("ls", "-A", "bundle"):
            demo.say("(nothing)")

    def _answer(self) -> tuple[int, int]:
        return self._session.get("/fleets").status_code, self._session.manifest.generation

    def _wait_for(self, generation: int) -> None:
        link = self._demo.directory / "bundle" / "current"
        self._demo.wait(
            lambda: link.is_symlink() and link.readlink().name == f"gen-{generation:06d}", self._holder, str(link)
        )


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
    here, pids = shlex.quote(str(demo.directory)), " ".join(str(process.pid) for process in demo.left)
    note(f"\nEverything is kept in {demo.directory}. Continue with:")
    note(f"  cd {here}")
    note(f"  {broker} status")
    note(f"  {broker} bundle get acme/reporting --config app.toml --to bundle")
    note("and to remove it:")
    note(f"  kill {pids}; {broker} vault stop; cd /; rm -r {here}")
