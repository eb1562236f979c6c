"""An exported file is verified without a vault, and every change to it is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from broker.copies import replace
from broker.errors import RefusedError
from broker.evidence.audit import Record, examine
from broker.evidence.export import exported, imported
from broker.evidence.statements import AnchorKey, ChainRecord, Statement, StoredStatement
from broker.model.chain import GENESIS, Entry, Head, appended
from broker.model.clock import Stamp
from broker.model.secret import Secret
from tests.support.accounts import NOW, later
from tests.support.evidence_archive import rewritten

ACME, OTHER = "accounts/acme", "accounts/other"
KEY = AnchorKey(Secret(bytes(range(32))))
FORGER = AnchorKey(Secret(b"\1" * 32))
Lines = list[dict[str, Any]]
Attack = Callable[[Lines], Lines]


def a_chain(name: str, length: int) -> list[Entry]:
    entries: list[Entry] = []
    for n in range(length):
        before = Head(entries[-1].number, entries[-1].hash) if entries else Head()
        entries.append(appended(name, before, Stamp(later(hours=n), "ops"), "thing", {"n": n, "é": "ü"}))
    return entries


def statements(key: AnchorKey, acme: list[Entry], other: list[Entry], at: tuple[int, ...]) -> list[StoredStatement]:
    """Sign entries `at` of acme in turn, the first time entry 3 of other too."""
    signed: list[StoredStatement] = []
    for number, last in enumerate(at, start=1):
        heads = {ACME: Head(last, acme[last - 1].hash)} | ({OTHER: Head(3, other[2].hash)} if number == 1 else {})
        before = signed[-1].hash if signed else GENESIS
        signed.append(key.signed(Statement(number, NOW, heads, before)))
    return signed


CHAIN, THEIRS = a_chain(ACME, 8), a_chain(OTHER, 4)
SIGNED = statements(KEY, CHAIN, THEIRS, (2, 4, 6))


def a_file() -> Lines:
    """Two chains: of acme, entries 2, 4 and 6 of 8 were signed; of other, entry 3 of 4."""
    chains = {
        ACME: ChainRecord(tuple(CHAIN), Head(8, CHAIN[-1].hash)),
        OTHER: ChainRecord(tuple(THEIRS), Head(4, THEIRS[-1].hash)),
    }
    return parsed(exported(Record(chains, tuple(SIGNED), KEY.verifying.pem), NOW))


def parsed(content: bytes) -> Lines:
    return [json.loads(line) for line in content.splitlines()]


def written(lines: Lines) -> bytes:
    return "\n".join(json.dumps(line) for line in lines).encode()


def ended(lines: Lines) -> Lines:
    """Return `lines` with the count at their end made right, as a forger would."""
    return [*(line for line in lines if "end" not in line), {"end": len(lines) - 1}]


@dataclass
class Found:
    """The errors of a file, and the other findings."""

    errors: dict[str, str]
    others: dict[str, str]


def found_in(content: bytes, key: AnchorKey | None = KEY) -> Found:
    report = examine(imported(content), key.verifying if key else None, everything=True)
    found = [*report.findings, *(f for chain in report.chains for f in chain.findings)]
    assert report.whole == (not any(f.severity.value == "error" for f in found))
    errors = {f.code: f.message for f in reversed(found) if f.severity.value == "error"}
    return Found(errors, {f.code: f.message for f in found if f.severity.value != "error"})


def test_unsigned_tails_are_noted() -> None:
    for key in (KEY, None):
        found = found_in(written(a_file()), key)
        assert not found.errors
        assert "last entries of 2 chains: accounts/acme, accounts/other" in found.others["anchor.unsigned"]


def test_a_record_comes_back_as_it_was() -> None:
    record = imported(written(a_file()))
    assert record.chains[ACME].entries == tuple(CHAIN)
    assert record.chains[ACME].head == Head(8, CHAIN[-1].hash)
    assert record.statements == tuple(SIGNED)
    assert not record.findings


def of_acme(lines: Lines) -> list[int]:
    """Return the lines of acme's entries."""
    return [n for n, line in enumerate(lines) if line.get("entry", {}).get("chain") == ACME]


def changed(number: int, **fields: Any) -> Attack:
    def attack(lines: Lines) -> Lines:
        lines[of_acme(lines)[number - 1]]["entry"] |= fields
        return lines

    return attack


def forged(at: int, keep: int = 8, *, head: bool = True) -> Attack:
    """Rewrite acme's chain from entry `at`, `keep` entries long; its head too, as far as a file goes."""

    def attack(lines: Lines) -> Lines:
        new = rewritten(CHAIN[:keep], at, by="nobody")
        places = of_acme(lines)
        lines = [line for n, line in enumerate(lines) if n not in places]
        if head:
            heading = next(line for line in lines if line.get("head", {}).get("chain") == ACME)
            heading["head"] |= {"number": keep, "hash": new[-1].hash}
        return ended([*lines[:-1], *({"entry": msgspec.to_builtins(entry)} for entry in new), lines[-1]])

    return attack


def cut(keep: int) -> Attack:
    """Cut acme's chain and its head to `keep` entries, changing none of them."""

    def attack(lines: Lines) -> Lines:
        places = of_acme(lines)[keep:]
        heading = next(line for line in lines if line.get("head", {}).get("chain") == ACME)
        heading["head"] |= {"number": keep, "hash": CHAIN[keep - 1].hash}
        return ended([line for n, line in enumerate(lines) if n not in places])

    return attack


def swapped(lines: Lines) -> Lines:
    one, other = of_acme(lines)[2:4]
    lines[one], lines[other] = lines[other], lines[one]
    return lines


def dropped(lines: Lines) -> Lines:
    del lines[of_acme(lines)[2]]
    return ended(lines)


def last_dropped(lines: Lines) -> Lines:
    del lines[of_acme(lines)[-1]]
    return ended(lines)


def doubled(lines: Lines) -> Lines:
    place = of_acme(lines)[2]
    return ended([*lines[:place], lines[place], *lines[place:]])


def without(chain: str) -> Attack:
    def attack(lines: Lines) -> Lines:
        return ended([x for x in lines if chain != (x.get("entry") or x.get("head") or {}).get("chain")])

    return attack


def replayed(lines: Lines) -> Lines:
    """Give acme the entries of other, renamed."""
    places = of_acme(lines)
    lines = [line for n, line in enumerate(lines) if n not in places and line.get("head", {}).get("chain") != ACME]
    copies = [{"entry": msgspec.to_builtins(replace(entry, chain=ACME))} for entry in THEIRS]
    return ended([*lines[:-1], *copies, lines[-1]])


def on_statement(number: int, change: Callable[[str], str]) -> Attack:
    def attack(lines: Lines) -> Lines:
        line = next(line for line in lines if line.get("statement") == number)
        line["text"] = change(line["text"])
        return lines

    return attack


def no_statement(number: int) -> Attack:
    return lambda lines: ended([line for line in lines if line.get("statement") != number])


def resigned(lines: Lines) -> Lines:
    """Rewrite the history and sign it with another key, which replaces the one in the file."""
    lines = forged(1)(lines)
    new = rewritten(CHAIN, 1, by="nobody")
    texts = {s.number: s.text for s in statements(FORGER, new, THEIRS, (2, 4, 6))}
    for line in lines:
        if "statement" in line:
            line["text"] = texts[line["statement"]]
        if "key" in line:
            line["key"] = FORGER.verifying.pem
    return lines


def first_line(**fields: Any) -> Attack:
    return lambda lines: [{**lines[0], **fields}, *lines[1:]]


def flipped(text: str) -> str:
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]


ATTACKS: dict[str, tuple[Attack, str, str]] = {
    "edited": (changed(3, by="nobody"), "evidence.edited", f"{ACME} entry 3 was edited"),
    "a field added": (changed(3, approved="yes"), "export.unreadable", "line 9 is damaged, or of a newer broker"),
    "dropped": (dropped, "evidence.gap", f"{ACME} entry 4 stands at place 3, after entry 2"),
    "doubled": (doubled, "evidence.gap", f"{ACME} entry 3 stands at place 4, after entry 3"),
    "reordered": (swapped, "evidence.gap", f"{ACME} entry 4 stands at place 3, after entry 2"),
    "rewritten": (forged(1), "evidence.forked", f"{ACME} entry 2 differs from the one that statement 1"),
    "forked": (forged(5), "evidence.forked", f"{ACME} entry 6 differs from the one that statement 3"),
    "cut before the last signed head": (cut(5), "evidence.cut", f"{ACME} ends at entry 5, but statement 3"),
    "cut, its head left": (last_dropped, "evidence.cut", f"{ACME} ends at entry 7, but its head is at 8"),
    "another account's": (replayed, "evidence.edited", f"{ACME} entry 1 was edited"),
    "a chain left out": (without(OTHER), "evidence.cut", f"{OTHER} ends at entry 0, but statement 1"),
    "a statement edited": (on_statement(2, flipped), "anchor.edited", "statement 2 was edited"),
    "a statement dropped": (no_statement(2), "anchor.gap", "statement 3 of 2026-01-01T12:00:00Z follows statement 1"),
    "a statement copied": (
        on_statement(2, lambda _: SIGNED[0].text), "anchor.misplaced", "statement 2 says that it is statement 1",
    ),
    "a statement signed by another": (
        on_statement(2, lambda _: FORGER.signed(Statement(2, NOW, {}, GENESIS)).text),
        "anchor.key", "statement 2 is signed with another key",
    ),
    "a statement that signs nothing new": (
        on_statement(3, lambda _: KEY.signed(Statement(3, NOW, {ACME: Head(2, CHAIN[1].hash)}, SIGNED[1].hash)).text),
        "anchor.shrank", "signs accounts/acme at entry 2: it went back",
    ),
    "a statement of another line of statements": (
        on_statement(3, lambda _: KEY.signed(Statement(3, NOW, {}, GENESIS)).text),
        "anchor.broken", "does not follow the one before it",
    ),
    "all signed again with another key": (resigned, "anchor.key", "another public key than the one given"),
    "lines appended": (lambda x: [*x, x[-2]], "export.appended", "comes after the end"),
    "file cut": (lambda x: x[:-3], "export.truncated", "the file is cut off after line"),
    "lines taken out": (lambda x: x[:5] + x[6:], "export.truncated", "and had 19 when it was written"),
    "a number that is text": (
        lambda x: [{**line, "statement": "1"} if line.get("statement") == 1 else line for line in x],
        "export.unreadable", "line 3 is damaged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_found_by_entry_and_reason(attack: str) -> None:
    how, code, words = ATTACKS[attack]
    found = found_in(written(how(a_file())))
    assert code in found.errors, found.errors
    assert words in found.errors[code]


@pytest.mark.parametrize("keep", [6, 7])
def test_unsigned_cut_tail_needs_vault(keep: int) -> None:
    """A file cannot show it; a note names the entries that no signature covers."""
    found = found_in(written(cut(keep)(a_file())))
    assert not found.errors
    assert "shows only against the account's document in Vault" in found.others["anchor.unsigned"]


def test_own_key_reveals_signing_again() -> None:
    content = written(resigned(a_file()))
    assert not found_in(content, None).errors
    assert set(found_in(content, KEY).errors) == {"anchor.key"}


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"[]", b"\xff\xfe", b"{}", b'{"evidence": "other", "schema": 1}', b"[" * 100_000],
)
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(RefusedError, match="no exported evidence"):
        imported(content)


@pytest.mark.parametrize("schema", [2, 99])
def test_newer_schema_is_refused(schema: int) -> None:
    with pytest.raises(RefusedError, match=f"schema {schema}, and this broker knows 1"):
        imported(written(first_line(schema=schema)(a_file())))


@pytest.mark.parametrize("schema", [True, "1", None, 0, -1])
def test_a_schema_that_is_none_is_refused(schema: object) -> None:
    with pytest.raises(RefusedError):
        imported(written(first_line(schema=schema)(a_file())))
