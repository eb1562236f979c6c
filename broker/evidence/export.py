"""Evidence as one file, to verify without a vault: JSON lines, nothing secret.

{"evidence": "credential-broker", "schema": 1, "at": …}
{"key": PEM} · {"statement": 1, "text": JWS} · {"head": {…}} · {"entry": {…}} …
{"end": number of lines before}
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from broker.errors import RefusedError
from broker.evidence.audit import Record
from broker.evidence.statements import ChainRecord, StoredStatement
from broker.model.chain import Entry, Head
from broker.model.finding import Finding
from broker.typed import json_object, typed

SCHEMA: Final = 1
_KIND: Final = "credential-broker"


def exported(record: Record, at: datetime) -> bytes:
    """Return `record` as the content of a file."""
    lines = [_line(value) for value in _values(record, at)]
    return b"".join([*lines, _line({"end": len(lines)})])


def imported(content: bytes) -> Record:
    """Return the record in `content`; lines that cannot be read become findings.

    Raise `RefusedError` if this is no export, or one of a newer broker.
    """
    lines = content.decode("utf-8", "replace").splitlines()
    first = json_object(lines[0]) or {} if lines else {}
    if first.get("evidence") != _KIND or type(first.get("schema")) is not int or first["schema"] < 1:
        raise RefusedError("this is no exported evidence", hint="broker evidence export FILE writes it")
    if first["schema"] > SCHEMA:
        message = f"this export has schema {first['schema']}, and this broker knows {SCHEMA}"
        raise RefusedError(message, hint="upgrade this broker")
    reading = _Reading()
    for number, line in enumerate(lines[1:], start=2):
        if reading.ended:
            reading.fault("appended", f"line {number} comes after the end")
        elif not reading.took(line, number):
            reading.fault("unreadable", f"line {number} is damaged, or of a newer broker")
    if not reading.ended:
        reading.fault("truncated", f"the file is cut off after line {len(lines)}: its last line must be its end")
    names = sorted({*reading.entries, *reading.heads})
    chains = {name: ChainRecord(tuple(reading.entries[name]), reading.heads.get(name)) for name in names}
    return Record(chains, tuple(reading.statements), reading.key, tuple(reading.findings))


def _values(record: Record, at: datetime) -> Iterator[dict[str, Any]]:
    yield {"evidence": _KIND, "schema": SCHEMA, "at": at.isoformat()}
    if record.key:
        yield {"key": record.key}
    for statement in record.statements:
        yield {"statement": statement.number, "text": statement.text}
    for name, chain in sorted(record.chains.items()):
        if chain.head is not None:
            yield {"head": {"chain": name, "number": chain.head.number, "hash": chain.head.hash}}
        yield from ({"entry": msgspec.to_builtins(entry)} for entry in chain.entries)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


@dataclass(slots=True)
class _Reading:
    key: str = ""
    statements: list[StoredStatement] = field(default_factory=list)
    entries: defaultdict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    heads: dict[str, Head] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    ended: bool = False

    def took(self, line: str, number: int) -> bool:
        """Read a line; return whether all of it is understood."""
        match json_object(line):
            case {"key": str(pem), **rest} if not rest and not self.key:
                self.key = pem
            case {"statement": int(place), "text": str(text), **rest} if not rest:
                self.statements.append(StoredStatement(place, text))
            case {"head": {"chain": str(chain), "number": int(place), "hash": str(hash_), **more}, **rest} if not (
                rest or more or chain in self.heads
            ):
                self.heads[chain] = Head(place, hash_)
            case {"entry": dict(value), **rest} if not rest:
                entry = _entry(value)
                if entry is None:
                    return False
                self.entries[entry.chain].append(entry)
            case {"end": int(count), **rest} if not rest:
                self.ended = True
                if count != number - 1:
                    self.fault("truncated", f"the file has {number - 1} lines, and had {count} when it was written")
            case _:
                return False
        return True

    def fault(self, code: str, message: str) -> None:
        self.findings.append(Finding.error(f"export.{code}", message, "compare it with another copy"))


def _entry(value: dict[str, Any]) -> Entry | None:
    try:
        entry = typed(value, Entry)
    except (msgspec.ValidationError, ValueError):
        return None
    # Another field is not in the hash
    return entry if msgspec.to_builtins(entry) == value and entry.at.tzinfo is not None else None
