"""Evidence: who did what, when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from broker.cli.options import accounts_argument
from broker.cli.output import note, output_option, show_findings, show_json, show_table
from broker.errors import InputError
from broker.model.evidence import Entry, verify
from broker.model.finding import Finding, Severity
from broker.model.names import AccountName

if TYPE_CHECKING:
    from broker.cli.start import Start

__all__ = ["command"]


@click.group("evidence")
def command() -> None:
    """Read the append-only, hash-chained record of every change and every issue."""


@command.command("show", epilog="Example: broker evidence show acme --issued")
@accounts_argument
@click.option("--issued", is_flag=True, help="Also bundles that were issued.")
@output_option
@click.pass_obj
def show(start: Start, accounts: tuple[AccountName, ...], everything: bool, issued: bool, output: str) -> None:
    """Show entries, the oldest first."""
    names = _named(start, accounts, everything)
    entries = [entry for name in names for entry in _of_account(start, name)]
    if issued or everything:
        entries += [e for e in _issued(start) if everything or e.facts.get("account") in names]
    entries.sort(key=lambda entry: (entry.at, entry.chain, entry.number))
    if output == "json":
        show_json(entries)
        return
    show_table(
        ["at", "chain", "no", "what", "by", "facts"],
        [(f"{e.at:%F %TZ}", e.chain, e.number, e.what, e.by, _facts(e)) for e in entries],
        empty="no evidence yet",
    )


@command.command("verify", epilog="Example: broker evidence verify --all")
@accounts_argument
@output_option
@click.pass_obj
def verify_(start: Start, accounts: tuple[AccountName, ...], everything: bool, output: str) -> int:
    """Check that nothing was edited, dropped, reordered or forked, and that it tells what the account says.

    Exit code 6 where something is wrong.
    """
    names = _named(start, accounts, everything)
    report = {f"accounts/{name}": _verified(start, name) for name in names}
    if everything:
        vault = start.auditor_evidence
        report |= {chain: (len(e := list(vault.entries(chain))), verify(chain, e)) for chain in vault.issuing_chains()}
    bad = any(f.severity is Severity.ERROR for _, findings in report.values() for f in findings)
    if output == "json":
        show_json(
            {
                "success": not bad,
                "chains": [{"chain": c, "entries": n, "findings": found} for c, (n, found) in report.items()],
            }
        )
        return 6 if bad else 0
    show_table(
        ["chain", "entries", "verdict"],
        [
            (c, n, "broken" if any(f.severity is Severity.ERROR for f in found) else "whole")
            for c, (n, found) in report.items()
        ],
        empty="no evidence yet",
    )
    for _, findings in report.values():
        show_findings(findings)
    return 6 if bad else 0


def _verified(start: Start, name: AccountName) -> tuple[int, tuple[Finding, ...]]:
    from broker.model.evidence import Head
    from broker.model.history import fold, standing

    account = start.broker.account(name)
    stored = list(start.auditor_evidence.entries(f"accounts/{name}"))
    waiting = [entry for entry in account.outbox if entry.number > len(stored)]
    findings = verify(f"accounts/{name}", [*stored, *waiting], Head(account.head.number, account.head.hash))
    if findings:
        return len(stored), findings
    try:
        agrees = fold([*stored, *waiting]) == standing(account)
    except (KeyError, ValueError):
        agrees = False
    if not agrees:
        sentence = (
            f"the evidence of {name} leads to other stages or parts than the account has: it was changed past the rules"
        )
        findings = (Finding("evidence.differs", Severity.ERROR, sentence, f"broker evidence show {name}"),)
    return len(stored), findings


def _named(start: Start, accounts: tuple[AccountName, ...], everything: bool) -> tuple[AccountName, ...]:
    if everything:
        return tuple(a.name for a in start.broker.all_accounts())
    if not accounts:
        raise InputError("whose evidence?", hint="name accounts, or --all")
    for name in accounts:
        start.broker.account(name)
    return accounts


def _of_account(start: Start, name: AccountName) -> Iterator[Entry]:
    stored = list(start.auditor_evidence.entries(f"accounts/{name}"))
    yield from stored
    for entry in start.broker.account(name).outbox:
        if entry.number > len(stored):
            note(f"entry {entry.number} of {name} is not stored yet: the next command that changes {name} does it")
            yield entry


def _issued(start: Start) -> Iterator[Entry]:
    vault = start.auditor_evidence
    for chain in vault.issuing_chains():
        yield from vault.entries(chain)


def _facts(entry: Entry) -> str:
    shown: dict[str, Any] = {k: v for k, v in entry.facts.items() if v not in ("", 0)}
    return " ".join(f"{k}={v if len(str(v)) <= _LONG else str(v)[:_LONG] + '…'}" for k, v in shown.items())


_LONG = 40
