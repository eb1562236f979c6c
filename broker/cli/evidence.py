"""`broker evidence`: the record of every change and every issued bundle."""

import sys
from datetime import UTC, datetime
from typing import Final

import click

from broker.cli.exits import REFUSED
from broker.cli.noun import Noun
from broker.cli.options import (
    account_argument,
    accounts_argument,
    moment,
    output_file_option,
    read_input,
    require_apart,
    require_free_output,
    require_one_reader,
    writable,
    write_output,
)
from broker.cli.output import note, show_findings, show_table, take_format, wrote_csv, wrote_json
from broker.cli.start import Start
from broker.errors import InputError
from broker.evidence.audit import ChainReport, Report, examine
from broker.evidence.export import exported, imported
from broker.evidence.statements import VerifyingKey
from broker.model.chain import Entry
from broker.model.duration import counted
from broker.model.finding import has_errors
from broker.model.names import AccountName

_LONG: Final = 40
_LARGEST_EXPORT: Final = 512 * 1024 * 1024


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    return moment(value) if value else None


@click.group("evidence", cls=Noun, epilog="Example: broker evidence verify --all")
def command() -> None:
    """Show, verify, sign and export the hash-chained record of every change and every issued bundle."""


@command.verb("show", example="broker evidence show acme --issued")
@accounts_argument
@click.option("--issued", is_flag=True, help="Also show issued bundles.")
def show(start: Start, accounts: tuple[AccountName, ...], everything: bool, issued: bool) -> None:
    """Show entries, oldest first."""
    names = _asked(accounts, everything) or [account.name for account in start.broker.all_accounts()]
    entries: list[Entry] = []
    for record in start.broker.stored_evidence(names, issued=issued or everything):
        show_findings(record.findings)
        entries += record.entries
    shown = (e for e in entries if everything or e.facts.get("account", names[0]) in names)
    entries = sorted(shown, key=lambda entry: (entry.at, entry.chain, entry.number))
    if wrote_json(entries):
        return
    show_table(
        ["at", "chain", "no", "what", "by", "facts"],
        [(f"{e.at:%F %TZ}", e.chain, e.number, e.what, e.by, _facts(e)) for e in entries],
        empty="no evidence yet",
    )


@command.verb("holders", example="broker evidence holders acme --from 2026-11-01 --to 2026-12-01 -o csv")
@account_argument
@click.option("--from", "start_", metavar="TIME", callback=_moment, help="Start, in UTC.  [default: the beginning]")
@click.option("--to", metavar="TIME", callback=_moment, help="End, in UTC.  [default: now]")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    expose_value=False,
    callback=take_format,
    help="Format of the output.",
)
def holders(start: Start, account: AccountName, start_: datetime | None, to: datetime | None) -> None:
    """Show who held which generation of an account, and when, by the evidence of issued bundles.

    A lease that was issued before the period and still held in it counts. "until" is when the lease ended, was returned
    or revoked, or will end if it is still held: a copy of a direct bundle works until its certificate expires. The
    evidence is not verified here: run broker evidence verify --all.
    """
    since, until = start_ or datetime.min.replace(tzinfo=UTC), to or start.now
    if start_ and not to and since >= until:
        raise InputError(f"--from is in the future: {since:%F %TZ}", hint=f"broker evidence holders {account}")
    if since >= until:
        raise InputError("--from is not before --to", hint="--from 2026-11-01 --to 2026-12-01")
    found = start.broker.holders(account, since, until)
    columns = ["consumer", "entity", "application", "kind", "generation", "lease", "since", "until", "end"]
    if wrote_csv(columns, ([getattr(held, name) for name in columns] for held in found)):
        return
    held = list(found)
    if wrote_json(held):
        return
    show_table(
        ["consumer", "application", "gen", "since", "until", "end"],
        [
            (h.consumer, h.application, h.generation, f"{h.since:%F %H:%MZ}", f"{h.until:%F %H:%MZ}", h.end)
            for h in held
        ],
        empty=f"nobody held a generation of {account} then",
    )


@command.verb(
    "verify", example="broker evidence verify --all; broker evidence verify --file 2026.jsonl --key anchor.pem"
)
@accounts_argument
@click.option("--file", default="", metavar="FILE|-", help="Verify an exported file instead; needs no vault.")
@click.option("--key", default="", metavar="PEM", help="Your copy of the anchor's public key, to verify signatures.")
def verify_(start: Start, accounts: tuple[AccountName, ...], everything: bool, file: str, key: str) -> int:
    """Verify that no entry was edited, removed, reordered or forked, by hashes, signed heads and the account.

    A cut after the last signed head shows only by comparison with the account's document in Vault: sign often (broker
    evidence anchor) and keep exports elsewhere. Reports entries that the broker did not write as foreign entries.
    Exits with 6 if there is an error.
    """
    require_one_reader(file, key)
    given = VerifyingKey(read_input(key).decode("utf-8", "replace")) if key else None
    if file and (accounts or everything):
        raise InputError("--file verifies all that is in the file; it takes no accounts", hint="leave the accounts out")
    if file:
        report = examine(imported(read_input(file, largest=_LARGEST_EXPORT)), given, everything=True)
    else:
        record = start.broker.evidence(_asked(accounts, everything), everything=everything)
        report = examine(record, given, everything=everything)
    origin = "given" if key else "file" if file else "vault"
    used = {"sha256": report.key, "from": origin} if report.key else None
    shown = {"chains": report.chains, "statements": report.statements, "key": used, "findings": report.findings}
    if not wrote_json({"success": report.whole, **shown}):
        _show_report(report, origin)
    return 0 if report.whole else REFUSED


@command.verb("anchor", example="broker evidence anchor -o json")
def anchor(start: Start) -> int:
    """Sign the heads of all chains, so that later changes to their entries can be detected.

    Run it from a timer, as the anchor role, which may do nothing else. Signs nothing if there are no new entries. A
    chain that differs from what was signed before is reported and keeps its old head; then the exit code is 6.
    """
    done = start.broker.anchor()
    bad = has_errors(done.findings)
    made = {"made": done.made, "newest": done.newest, "key": done.key.fingerprint}
    if not wrote_json({"success": not bad, **made, "findings": done.findings}):
        number = ", ".join(map(str, done.made))
        note(f"signed statement {number}" if number else f"nothing new since statement {done.newest}")
        note(f"key SHA-256 {done.key.fingerprint}")
        show_findings(done.findings)
    return REFUSED if bad else 0


@command.verb("export", example="broker evidence export 2026.jsonl --key-to anchor.pem")
@click.argument("file", metavar="FILE|-", callback=writable)
@output_file_option("--key-to", "Also write the anchor's public key; keep it apart from the export.")
def export(start: Start, file: str, key_to: str) -> None:
    """Export all chains, heads and signed statements to one file of JSON lines, for readers without a vault.

    The file holds no secrets. It is exported unverified: verify it afterwards. Entries that cannot be read are
    reported and left out.
    """
    require_apart(file, key_to)
    require_free_output(file, "the export")
    require_free_output(key_to, "the key")
    record = start.broker.evidence((), everything=True)
    if key_to and not record.key:
        raise InputError("nothing has been signed yet, so there is no key", hint="broker evidence anchor")
    write_output(file, exported(record, start.broker.true_clock()))
    if key_to:
        write_output(key_to, record.key.encode())
    show_findings((*record.findings, *(f for chain in record.chains.values() for f in chain.findings)))
    count = sum(len(chain.entries) for chain in record.chains.values())
    chains, statements = len(record.chains), len(record.statements)
    if not wrote_json({"success": True, "entries": count, "chains": chains, "statements": statements}):
        kept = f"{counted(count, 'entry', 'entries')} of {counted(chains, 'chain')}"
        note(f"{kept}, {counted(statements, 'signed statement')}")


def _show_report(report: Report, origin: str) -> None:
    show_table(
        ["chain", "entries", "signed", "verdict"],
        [(c.chain, c.entries, c.signed, "whole" if c.whole else "broken") for c in report.chains if _shows(c)],
        empty="no evidence of accounts yet",
    )
    issued = [chain for chain in report.chains if not _shows(chain)]
    if issued:
        entries = counted(sum(chain.entries for chain in issued), "entry", "entries")
        click.echo(f"{counted(len(issued), 'chain')} of issued bundles, {entries}: whole")
    for chain in report.chains:
        show_findings(chain.findings)
    show_findings(report.findings)
    if report.key:
        signed = counted(report.statements, "signed statement")
        note(f"{signed}, key SHA-256 {report.key} ({_ORIGIN[origin]})")


def _shows(chain: ChainReport) -> bool:
    """Return whether a chain has a line of its own: each process that issues bundles has a chain."""
    return not chain.chain.startswith("issued/") or bool(chain.findings)


_ORIGIN: Final = {
    "given": "given with --key",
    "vault": "from Vault, where an administrator can replace it: pass your own copy with --key",
    "file": "from the file itself, whose writer may have signed it: pass your own copy with --key",
}


def _asked(accounts: tuple[AccountName, ...], everything: bool) -> tuple[AccountName, ...]:
    if not accounts and not everything:
        raise InputError("no account is named", hint="name accounts, or use --all")
    return () if everything else accounts


def _facts(entry: Entry) -> str:
    """Return the facts on one line; long values are cut on a terminal."""
    longest = _LONG if sys.stdout.isatty() else None
    shown = {name: str(value) for name, value in entry.facts.items() if value not in ("", 0)}
    return " ".join(f"{k}={v[:longest]}{'…' if v != v[:longest] else ''}" for k, v in shown.items())
