"""Read the evidence, and say whether it is whole: every chain by itself, against what was signed, and the account."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from broker.errors import InputError, RefusedError, UnknownNameError
from broker.evidence.heads import SignedStatement, against_statements, newest_heads, verify_statements
from broker.evidence.signing import Chains
from broker.evidence.statements import StoredStatement, VerifyingKey, opened
from broker.evidence.tamper import untold
from broker.model.account import Account
from broker.model.chain import Entry, Head, verify
from broker.model.finding import Finding, has_errors
from broker.model.names import AccountName

__all__ = ["ChainRecord", "ChainReport", "Record", "Report", "SignedStatements", "collect", "examine"]

ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class ChainRecord:
    """One chain as it was read; `head` is what the account's document says, None for who has none."""

    entries: tuple[Entry, ...]
    head: Head | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """All the evidence that was read, from Vault or from an exported file; nothing of it is believed yet."""

    chains: Mapping[str, ChainRecord]
    statements: tuple[StoredStatement, ...] = ()
    key: str = ""  # PEM; untrusted: whoever can write statements can replace it
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What there is to say about one chain: `signed` is its last entry that a statement covers, 0 if none does."""

    chain: str
    entries: int
    signed: int
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether no error was found."""
        return not has_errors(self.findings)


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on a record: on its chains, and on the statements that sign them."""

    chains: tuple[ChainReport, ...]
    statements: int
    key: str  # the fingerprint of what signatures were verified with, "" where there is none
    findings: tuple[Finding, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether no error was found anywhere."""
        return all(c.whole for c in self.chains) and not has_errors(self.findings)


class SignedStatements(Protocol):
    """The statements, and the key to verify them, as an auditor reads them."""

    def statements(self) -> tuple[StoredStatement, ...]:
        """Return all of them, in the order of their places."""

    def verifying_key(self) -> VerifyingKey | None:
        """Return the public key, None where nothing was signed yet."""


ReadAccount = Callable[[AccountName], Account]  # raises UnknownNameError


def collect(
    chains: Chains, signed: SignedStatements, read: ReadAccount, names: Iterable[AccountName], *, everything: bool
) -> Record:
    """Return the evidence of the accounts `names` as it is stored now; with `everything`, that of all others too.

    Raise `UnknownNameError` for an account that neither has a document nor ever left evidence.
    """
    statements, (key, faults) = signed.statements(), _key(signed)  # first: what is signed meanwhile is no cut tail
    found = {f"accounts/{name}": _of_account(name, chains, read, known=everything) for name in names}
    for chain in chains.chains() if everything else ():
        kind, _, name = chain.partition("/")
        if kind != "accounts":
            found[chain] = _kept(chain, chains)
        elif chain not in found:
            found[chain] = _of_account(AccountName(name), chains, read, known=True)
    return Record(found, statements, key, faults)


def examine(record: Record, key: VerifyingKey | None = None, *, everything: bool) -> Report:
    """Return what is wrong with `record`. Signatures are verified with `key`, else with the key that came with it.

    With `everything`, a chain that was signed and is not in the record is missing.
    """
    used = key or (VerifyingKey(record.key) if record.key else None)
    findings = list(record.findings)
    signed: tuple[SignedStatement, ...] = ()
    if used and key and record.key and VerifyingKey(record.key).fingerprint != key.fingerprint:
        findings.append(_error("anchor.key", "the evidence comes with another public key than the one given"))
    if used:
        signed, faults = opened(record.statements, used)
        findings += [*faults, *(verify_statements(signed) if not faults else ())]
    elif record.statements:
        findings.append(_error("anchor.key", "there are signed statements, and the key to verify them is gone"))
    heads = newest_heads(signed)
    chains = dict(record.chains)
    if everything:
        chains |= {chain: ChainRecord(()) for chain in heads if chain not in chains}
    reports = tuple(_examined(chain, one, signed, heads) for chain, one in sorted(chains.items()))
    return Report(reports, len(record.statements), used.fingerprint if used else "", (*findings, *_unsigned(reports)))


def _examined(
    chain: str, record: ChainRecord, signed: tuple[SignedStatement, ...], heads: Mapping[str, Head]
) -> ChainReport:
    findings = [*record.findings, *verify(chain, record.entries, record.head)]
    findings += against_statements(chain, record.entries, signed)
    last = max((entry.number for entry in record.entries), default=0)
    if record.head is not None and last > record.head.number:
        message = f"{chain} entry {record.head.number + 1} and what follows are not the account's: its head is before"
        findings.append(_error("evidence.ahead", message))
    return ChainReport(chain, len(record.entries), heads.get(chain, Head()).number, tuple(findings))


def _unsigned(reports: Iterable[ChainReport]) -> Iterable[Finding]:
    """Say what no signature covers yet."""
    names = [r.chain for r in reports if r.entries > r.signed]
    if names:
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        message = (
            f"no statement covers the last entries of {len(names)} chain(s): {shown}. A tail cut there shows only "
            "against the account's document in Vault, and for issued/… not at all"
        )
        yield Finding.note("anchor.unsigned", message, "broker evidence anchor")


def _key(signed: SignedStatements) -> tuple[str, tuple[Finding, ...]]:
    """Return the public key in PEM, "" if there is none to use, and what is wrong with it."""
    try:
        key = signed.verifying_key()
    except (RefusedError, InputError) as error:
        return "", (_error("anchor.key", f"the key to verify signed statements cannot be read: {error.message}"),)
    return key.pem if key else "", ()


def _of_account(name: AccountName, chains: Chains, read: ReadAccount, *, known: bool) -> ChainRecord:
    """Read an account and its chain as of one moment: the account, its chain, and whether the account is the same.

    `known` says that Vault lists the account or its chain; else raise `UnknownNameError` where it has neither.
    """
    chain = f"accounts/{name}"
    for _ in range(ATTEMPTS):
        try:
            account = read(name)
            record = _kept(chain, chains)
            if read(name) == account:
                return _joined(account, record)
        except UnknownNameError:
            fault = _error("evidence.orphan", f"{chain} has no account document: it was deleted past the broker")
            orphan = _kept(chain, chains, fault)
            if not known and not orphan.entries and orphan.findings == (fault,):
                raise
            return orphan
        except RefusedError as error:  # damaged, or of a newer schema: the chain itself can still be judged
            return _kept(chain, chains, _error("evidence.account", error.message))
    fault = Finding.error("evidence.account", f"{name} kept changing while it was read", "ask again")
    return _kept(chain, chains, fault)  # whoever writes it all the time does not keep others from being verified


def _kept(chain: str, chains: Chains, *faults: Finding) -> ChainRecord:
    kept = chains.kept(chain)
    return ChainRecord(kept.entries, None, (*faults, *kept.findings))


def _joined(account: Account, record: ChainRecord) -> ChainRecord:
    """Return the chain with what still waits in the account's outbox, judged against the account."""
    stored = {entry.number for entry in record.entries}
    entries = record.entries + tuple(entry for entry in account.outbox if entry.number not in stored)
    findings = record.findings
    if not has_errors(findings) and not verify(f"accounts/{account.name}", entries, account.head):
        told = untold(account, entries)
        findings += tuple(_error("evidence.differs", f"{what}: it was changed past the rules") for what in told)
    return ChainRecord(entries, account.head, findings)


def _error(code: str, message: str) -> Finding:
    return Finding.error(code, message, "keep what you have and compare it with an older export")


_SHOWN: Final = 3
