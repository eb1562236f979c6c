"""`broker doctor`: what is wrong with this installation, and what the partner has not published."""

from collections.abc import Iterator

import click

from broker.cli.exits import REFUSED
from broker.cli.hardening import harden
from broker.cli.output import show_findings, wrote_json
from broker.cli.start import Start
from broker.model.finding import Finding, has_errors


@click.command("doctor", epilog="Example: broker doctor -o json")
@click.pass_obj
def command(start: Start) -> int:
    """Check vault, logins, policies, clock, files and accounts; list what the partner has not published.

    Reports foreign entries in Vault: entries that the broker did not write. Changes nothing. Exits with 6 if there is
    an error.
    """
    findings = [*_process(), *start.broker.doctor()]
    bad = has_errors(findings)
    if not wrote_json({"success": not bad, "findings": findings}):
        show_findings(findings, err=False)
        click.echo("there are errors" if bad else "no errors")
    return REFUSED if bad else 0


def _process() -> Iterator[Finding]:
    granted = harden()
    if not (granted.no_core and granted.private):
        message = "the kernel does not keep this process's memory from core files and other processes of its user"
        yield Finding.warning("process.open", message, "run it as a user that runs nothing else")
    if not granted.locked:
        message = "the kernel does not lock this process's memory: a secret in it may be written to swap"
        yield Finding.note("process.swap", message, "encrypt swap, or allow locking: ulimit -l unlimited")
