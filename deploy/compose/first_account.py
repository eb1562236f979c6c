"""Set an empty vault up for the broker, bring in one account through the partner stand-in, and enrol an application.

Runs in the working directory that the stand-in shares. The commands are those of docs/own-vault.md; a second run
finds the account, and gives the application another token.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

SUBJECT = ("C=FR", "ST=Ile-de-France", "L=Paris", "O=ACME", "emailAddress=api@acme.example")
ADMINISTRATOR = dict(os.environ)
ROLES = {name: value for name, value in os.environ.items() if name != "VAULT_TOKEN"}


def broker(*arguments: str, environment: dict[str, str] = ROLES) -> None:
    """Run `broker ARGUMENTS`; a failure ends this script."""
    subprocess.run([sys.executable, "-m", "broker", *arguments], env=environment, check=True)


def known(account: str) -> bool:
    """Return whether the account exists."""
    command = [sys.executable, "-m", "broker", "account", "show", account]
    return subprocess.run(command, env=ROLES, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Do all of it."""
    broker("vault", "setup", "--login-dir", "roles", environment=ADMINISTRATOR)
    if not known("acme"):
        bring_in()
    enrolment = ("vault", "enrol", "reporting", "--right", "acme/reporting", "--token-file", "reporting.token")
    broker(*enrolment, environment=ADMINISTRATOR)


def bring_in() -> None:
    """Add the account, and make its first generation current."""
    partner = json.loads(Path("partner/standin.json").read_text())
    subject = [part for pair in SUBJECT for part in ("--subject", pair)]
    place = ("--environment", "stand-in", "--base-url", partner["api_url"], "--login", "MZP0000001")
    broker("account", "add", "acme", *place, *subject, "--contact", "desk@partner.example")
    broker("password", "set", "acme", "--password-file", "/run/secrets/partner-password")
    broker("app", "add", "acme/reporting")
    broker("csr", "new", "acme", "--out", "acme.csr")
    broker("csr", "submit", "acme", "--out", "acme.eml")
    desk = Request(f"{partner['desk_url']}/desk/requests?reply=zip", Path("acme.eml").read_bytes())
    Path("acme.zip").write_bytes(urlopen(desk).read())
    accept = [part for ca in ("issuing", "server") for part in ("--accept-ca", partner[f"{ca}_ca_sha256"])]
    broker("cert", "import", "acme", "acme.zip", "--client-id-for", "reporting", *accept)
    broker("rotation", "promote", "acme")


main()
