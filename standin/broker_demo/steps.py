"""Steps from an empty directory to an account with a current generation, and a service that hands it out."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from broker_demo.runner import Demo

LOGIN: Final = "MZP0000001"
PASSWORD: Final = "not-a-real-password"  # noqa: S105  # made up, for the stand-in
CONFIG: Final = 'version = 1\n\n[embedded]\ndirectory = "vault"\n'
PATIENCE: Final = 20.0  # seconds


def prepare(demo: Demo) -> None:
    """Write the configuration, and the password that the partner has given."""
    (demo.directory / "broker.toml").write_text(CONFIG)
    (demo.directory / "password.txt").write_text(PASSWORD)
    (demo.directory / "password.txt").chmod(0o600)


def vault(demo: Demo, *, keep: bool) -> None:
    """Start an embedded vault. It ends with this process, unless `keep`."""
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

    until = time.monotonic() + PATIENCE
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


def partner(demo: Demo, *, keep: bool) -> dict[str, Any]:
    """Start the partner stand-in; return its addresses."""
    demo.title("The partner stand-in: a CSR desk, and the Fleet Owner API over mTLS")
    command = ("partner-standin", "serve", "--dir", "partner", "--account", f"{LOGIN}:password.txt")
    process = demo.start(*command, outlives=keep)
    demo.wait_for("partner/standin.json", process)
    found = dict(demo.read("partner/standin.json"))
    demo.say(f"API {found['api_url']}, desk {found['desk_url']}")
    return found


def first_generation(demo: Demo) -> None:
    """Start the stand-in, and bring in the account `acme` up to its first generation."""
    found = partner(demo, keep=False)
    account(demo, found["api_url"])
    demo.run("broker", "csr", "new", "acme")
    demo.run("broker", "csr", "submit", "acme", "--out", "acme.eml")
    post(demo, f"{found['desk_url']}/desk/requests?reply=zip", "acme")
    accepted(demo)
    demo.run("broker", "rotation", "promote", "acme")


def account(demo: Demo, api: str) -> None:
    """Add the account `acme`, with its application `reporting`."""
    demo.title("An account, its password, and an application that will use it")
    subject = ("C=FR", "ST=Ile-de-France", "L=Paris", "O=Société Exemple", "emailAddress=fleet@exemple.example")
    demo.run(
        "broker", "account", "add", "acme", "--environment", "stand-in", "--base-url", api, "--login", LOGIN,
        *(part for pair in subject for part in ("--subject", pair)), "--contact", "desk@partner.example",
    )  # fmt: skip
    demo.run("broker", "password", "set", "acme", "--password-file", "password.txt")
    demo.run("broker", "app", "add", "acme/reporting")


def request(demo: Demo) -> None:
    """Make a signing request, and the mail that carries it."""
    demo.title("A signing request: its key is in the vault before the CSR is shown")
    demo.run("broker", "csr", "new", "acme", "--out", "acme.csr")
    demo.run("broker", "csr", "lint", "acme.csr", "--login", LOGIN)
    demo.run("broker", "csr", "submit", "acme", "--out", "acme.eml")
    demo.run("broker", "status")


def reply(demo: Demo, desk: str) -> None:
    """Have the request signed, and import the reply."""
    demo.title("The partner signs it (in days, usually), and the reply is imported")
    demo.say("This certificate lasts 14 days only, so that its renewal is due in this demo.")
    post(demo, f"{desk}/desk/requests?reply=zip&lifetime=14d", "acme")
    demo.say("The partner's CA is not accepted yet, so the import is refused:")
    demo.run("broker", "cert", "import", "acme", "acme.zip", expect=6)
    demo.say("The partner reads out the fingerprints on the telephone. They match:")
    accepted(demo)


def accepted(demo: Demo) -> None:
    """Import the reply, and accept the partner's CAs."""
    found = demo.read("partner/standin.json")
    accept = ("--accept-ca", str(found["issuing_ca_sha256"]), "--accept-ca", str(found["server_ca_sha256"]))
    demo.run("broker", "cert", "import", "acme", "acme.zip", *accept, "--client-id-for", "reporting")


def post(demo: Demo, url: str, name: str) -> None:
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


def promotion(demo: Demo) -> None:
    """Try the candidate, and make it current."""
    demo.title("The canary, one harmless real request; then the set becomes current")
    demo.run("broker", "rotation", "canary", "acme", "--generation", "1")
    demo.run("broker", "rotation", "promote", "acme")
    demo.run("broker", "rotation", "status", "acme")


def enrolment(demo: Demo) -> None:
    """Give the application a token, and show that Vault itself lets it read nothing."""
    demo.title("An application's token: good for its own bundle, nothing else")
    enrol(demo)
    demo.say("With this token, Vault itself shows no secret:")
    demo.shell(
        "BAO_ADDR=unix://vault/bao.sock BAO_TOKEN=$(cat reporting.token) \\\n"
        "    bao read credential-broker/data/passwords/acme/1",
        expect=2,
    )


def enrol(demo: Demo) -> None:
    """Write a token of the application to reporting.token."""
    rights = ("--right", "acme/reporting", "--token-file", "reporting.token")
    demo.run("broker", "vault", "enrol", "reporting", *rights)


def service(demo: Demo, *, keep: bool) -> tuple[str, subprocess.Popen[bytes]]:
    """Start the service, and write the application's configuration; return the service's address and process."""
    demo.title("The service: applications get their bundles over HTTP")
    address = f"unix://{demo.directory}/broker.sock"
    process = demo.start("broker", "serve", "--listen", address, "--health", "", outlives=keep)
    demo.wait(lambda: f"listening on {address}" in demo.said_by(process), process, address)
    identity = ("--auth", "token-file:reporting.token", "--out", "app.toml")
    demo.run("broker", "init", "--consumer", "--addr", address, *identity)
    return address, process
