"""Verify evidence: every chain by itself, against signed statements, and against the account's document."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import Struct

from broker.copies import replace
from broker.errors import InputError, RefusedError, UnknownNameError
from broker.evidence import statements as signing
from broker.evidence.statements import COMPARE, ChainRecord, Chains, Statement, Statements, StoredStatement
from broker.evidence.tamper import differences
from broker.model.account import Account
from broker.model.chain import Head, verify
from broker.model.duration import counted
from broker.model.finding import Finding, has_errors
from broker.model.names import AccountName

ATTEMPTS: Final = 5
ReadAccount = Callable[[AccountName], Account]  # raises UnknownNameError
_SHOWN: Final = 3


class Record(Struct, frozen=True):
    """Evidence as it was read from Vault or from an exported file, not yet verified."""

    chains: Mapping[str, ChainRecord]
    statements: tuple[StoredStatement, ...] = ()
    key: str = ""  # PEM; untrusted: a role that writes statements can replace it
    findings: tuple[Finding, ...] = ()


class ChainReport(Struct, frozen=True):
    """The verdict on one chain. `signed` is the last entry that a statement covers, 0 if none does."""

    chain: str
    entries: int
    signed: int
    findings: tuple[Finding, ...]

    @property
    def whole(self) -> bool:
        """Whether it has no error."""
        return not has_errors(self.findings)


class Report(Struct, frozen=True):
    """The verdict on a record: its chains, and the statements that sign them."""

    chains: tuple[ChainReport, ...]
    statements: int
    key: str  # fingerprint of the key that verified signatures, "" without one
    findings: tuple[Finding, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing has an error."""
        return all(c.whole for c in self.chains) and not has_errors(self.findings)


def collect(
    chains: Chains, signed: Statements, read: ReadAccount, names: Iterable[AccountName], *, everything: bool
) -> Record:
    """Return the stored evidence of the accounts `names`; with `everything`, that of all others too.

    Raise `UnknownNameError` for an account that has neither a document nor evidence.
    """
    statements, (key, faults) = signed.statements(), _key(signed)  # first: a later statement may sign newer entries
    found = {f"accounts/{name}": _of_account(name, chains, read, known=everything) for name in names}
    for chain in chains.chains() if everything else ():
        kind, _, name = chain.partition("/")
        if kind != "accounts":
            found[chain] = chains.kept(chain)
        elif chain not in found:
            found[chain] = _of_account(AccountName(name), chains, read, known=True)
    return Record(found, statements, key, faults)


def examine(record: Record, key: signing.VerifyingKey | None = None, *, everything: bool) -> Report:
    """Return the faults of `record`. Signatures are verified with `key`, else with the record's own key.

    With `everything`, a signed chain that is not in the record is missing.
    """
    used = key or (signing.VerifyingKey(record.key) if record.key else None)
    findings = list(record.findings)
    signed: tuple[Statement, ...] = ()
    if key and record.key and signing.VerifyingKey(record.key).fingerprint != key.fingerprint:
        findings.append(_error("anchor.key", "the evidence comes with another public key than the one given"))
    if used:
        signed, faults = signing.verified(record.statements, used)
        findings += faults
    elif record.statements:
        findings.append(_error("anchor.key", "there are signed statements, and the key to verify them is gone"))
    heads = signing.newest_heads(signed)
    chains = {**({chain: ChainRecord(()) for chain in heads} if everything else {}), **record.chains}
    reports = tuple(_examined(name, one, signed, heads.get(name, Head())) for name, one in sorted(chains.items()))
    return Report(reports, len(record.statements), used.fingerprint if used else "", (*findings, *_unsigned(reports)))


def _examined(chain: str, record: ChainRecord, signed: tuple[Statement, ...], head: Head) -> ChainReport:
    findings = [*record.findings, *verify(chain, record.entries, record.head)]
    findings += signing.against_statements(chain, record.entries, signed)
    last = max((entry.number for entry in record.entries), default=0)
    if record.head is not None and last > record.head.number:
        message = f"{chain} entry {record.head.number + 1} and later ones are after the account's head"
        findings.append(_error("evidence.ahead", message))
    return ChainReport(chain, len(record.entries), head.number, tuple(findings))


def _unsigned(reports: Iterable[ChainReport]) -> Iterable[Finding]:
    """Yield a note about entries that no signature covers yet."""
    names = [r.chain for r in reports if r.entries > r.signed]
    if names:
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        message = (
            f"no statement covers the last entries of {counted(len(names), 'chain')}: {shown}. A tail cut there shows "
            "only against the account's document in Vault, and for issued/… not at all"
        )
        yield Finding.note("anchor.unsigned", message, "broker evidence anchor")


def _key(signed: Statements) -> tuple[str, tuple[Finding, ...]]:
    """Return the public key in PEM, "" if there is none to use, and its faults."""
    try:
        key = signed.verifying_key()
    except (RefusedError, InputError) as error:
        return "", (_error("anchor.key", f"the key to verify signed statements cannot be read: {error.message}"),)
    return key.pem if key else "", ()


def _of_account(name: AccountName, chains: Chains, read: ReadAccount, *, known: bool) -> ChainRecord:
    """Read an account and its chain at one moment: the account before and after its chain must be the same.

    `known` means that Vault lists the account or its chain; else raise `UnknownNameError` if neither is there.
    """
    chain = f"accounts/{name}"
    for _ in range(ATTEMPTS):
        try:
            account = read(name)
            record = chains.kept(chain)
            if read(name) == account:
                return _joined(account, record)
        except UnknownNameError:
            orphan = chains.kept(chain)
            if not (known or orphan.entries or orphan.findings):
                raise
            return _with(orphan, "evidence.orphan", f"{chain} has no account document: it was deleted past the broker")
        except RefusedError as error:  # damaged, or of a newer schema: the chain itself can still be verified
            return _with(chains.kept(chain), "evidence.account", error.message)
    # An account that is written all the time does not keep others from being verified
    message = f"{name} kept changing while it was read"
    return _with(chains.kept(chain), "evidence.account", message, "run it again")


def _with(record: ChainRecord, code: str, message: str, hint: str = COMPARE) -> ChainRecord:
    return replace(record, findings=(Finding.error(code, message, hint), *record.findings))


def _joined(account: Account, record: ChainRecord) -> ChainRecord:
    """Return the chain with the entries in the account's outbox, compared with the account."""
    stored, findings = {entry.number for entry in record.entries}, record.findings
    entries = record.entries + tuple(entry for entry in account.outbox if entry.number not in stored)
    if not has_errors(findings) and not verify(f"accounts/{account.name}", entries, account.head):
        found = differences(account, entries)
        findings += tuple(_error("evidence.differs", f"{what}: it was changed without the broker") for what in found)
    return ChainRecord(entries, account.head, findings)


def _error(code: str, message: str) -> Finding:
    return Finding.error(code, message, COMPARE)
