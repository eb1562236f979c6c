"""A chain of evidence shows whatever was done to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from broker.copies import replace
from broker.errors import InputError
from broker.model.chain import GENESIS, Entry, Head, appended, verify
from broker.model.clock import Stamp
from broker.vault.documents import decoded, encoded
from tests.support.accounts import NOW, an_account, assert_refused, assert_sound, with_rolled_back

CHAIN = "accounts/mzp-1"
Tampering = Callable[[list[Entry]], list[Entry]]


def a_chain(length: int = 6, chain: str = CHAIN, by: str = "ops") -> list[Entry]:
    entries: list[Entry] = []
    for n in range(length):
        before = Head(entries[-1].number, entries[-1].hash) if entries else Head()
        entries.append(appended(chain, before, Stamp(NOW + timedelta(n), by), f"thing-{n}", {"n": n}))
    return entries


def head_of(entries: list[Entry]) -> Head:
    return Head(entries[-1].number, entries[-1].hash)


def rewritten(entries: list[Entry], at: int, **fields: object) -> list[Entry]:
    """Return the chain with entry `at` changed, and every hash after it made to fit, as a forger would."""
    out = entries[: at - 1]
    for old in entries[at - 1 :]:
        before = out[-1].hash if out else GENESIS
        new = replace(old, before=before, **(fields if old.number == at else {}))  # type: ignore[arg-type]
        out.append(replace(new, hash=new.expected_hash))
    return out


def codes(entries: list[Entry], head: Head | None = None, chain: str = CHAIN) -> set[str]:
    return {finding.code for finding in verify(chain, entries, head)}


def test_a_whole_chain_has_nothing_wrong() -> None:
    assert codes(a_chain(), head_of(a_chain())) == set()
    assert codes([], Head()) == set()


EDITS: dict[str, dict[str, object]] = {
    "time": {"at": NOW - timedelta(days=1)},
    "who": {"by": "nobody"},
    "what": {"what": "other"},
    "a fact": {"facts": {"n": 99}},
    "a fact more": {"facts": {"n": 2, "m": 1}},
    "no fact": {"facts": {}},
    "a fact of another type": {"facts": {"n": "2"}},
    "its hash": {"hash": "0" * 64},
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("at", [1, 3, 6])
def test_an_edited_entry_shows_and_is_named(edit: str, at: int) -> None:
    entries = a_chain()
    entries[at - 1] = replace(entries[at - 1], **EDITS[edit])  # type: ignore[arg-type]
    found = verify(CHAIN, entries)
    assert "evidence.edited" in {f.code for f in found}
    assert f"entry {at} " in found[0].message


@pytest.mark.parametrize("at", [1, 3, 5])
def test_rehashed_edit_breaks_the_next_link(at: int) -> None:
    entries = a_chain()
    forged = replace(entries[at - 1], by="nobody")
    entries[at - 1] = replace(forged, hash=forged.expected_hash)
    assert codes(entries) == {"evidence.broken"}


TAMPERINGS: dict[str, tuple[Tampering, str]] = {
    "first dropped": (lambda e: e[1:], "evidence.gap"),
    "one dropped": (lambda e: e[:2] + e[3:], "evidence.gap"),
    "two swapped": (lambda e: [e[0], e[2], e[1], *e[3:]], "evidence.gap"),
    "one doubled": (lambda e: [*e[:3], e[2], *e[3:]], "evidence.gap"),
    "reversed": (lambda e: e[::-1], "evidence.gap"),
    "renumbered after a drop": (lambda e: e[:2] + [replace(x, number=x.number - 1) for x in e[3:]], "evidence.edited"),
    "forked": (lambda e: e[:3] + rewritten(e, 3, by="nobody")[3:], "evidence.broken"),
    "one of another account": (lambda e: [*e[:2], a_chain(chain="accounts/other")[2], *e[3:]], "evidence.foreign"),
    "all of another account": (lambda e: a_chain(chain="accounts/other"), "evidence.foreign"),
    "another's under this name": (
        lambda e: [replace(x, chain=CHAIN) for x in a_chain(chain="accounts/other")], "evidence.edited",
    ),
}  # fmt: skip


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_what_was_done_to_the_chain_shows(tampering: str) -> None:
    how, code = TAMPERINGS[tampering]
    assert code in codes(how(a_chain()))


@pytest.mark.parametrize("left", [0, 1, 5])
def test_cut_tail_needs_an_outside_head(left: int) -> None:
    whole = a_chain()
    assert codes(whole[:left]) == set()
    assert codes(whole[:left], head_of(whole)) == {"evidence.cut"}


@pytest.mark.parametrize("at", range(1, 7))
def test_rewritten_history_is_found(at: int) -> None:
    forged = rewritten(a_chain(), at, by="nobody")
    assert codes(forged) == set()
    assert codes(forged, head_of(a_chain())) == {"evidence.forked"}


def test_longer_rewritten_history_is_found() -> None:
    """A head signed earlier must be passed through, not merely reached."""
    forged = rewritten(a_chain(8), 2, by="nobody")
    assert codes(forged, head_of(a_chain(6))) == {"evidence.forked"}


def test_chain_may_outgrow_its_signed_head() -> None:
    assert codes(a_chain(8), head_of(a_chain(6))) == set()


def test_chain_behind_its_head_is_cut() -> None:
    assert codes([], head_of(a_chain(1))) == {"evidence.cut"}


def test_the_chain_of_an_account_is_its_own() -> None:
    one, other = an_account("mzp-1"), an_account("mzp-2")
    assert "evidence.foreign" in codes(list(other.outbox), chain=f"accounts/{one.name}")


def test_whole_history_verifies() -> None:
    assert_sound(with_rolled_back())


def test_hash_ignores_the_order_of_keys() -> None:
    head = Head()
    one = appended(CHAIN, head, Stamp(NOW, "a"), "w", {"x": 1, "y": "z"})
    other = appended(CHAIN, head, Stamp(NOW, "a"), "w", {"y": "z", "x": 1})
    assert one.hash == other.hash


@pytest.mark.parametrize("text", ["h\udcffs@b.c", "\ud800", "x" * 1001, "é" * 1001])
@pytest.mark.parametrize("where", ["by", "reason"])
def test_text_that_would_change_is_refused(where: str, text: str) -> None:
    by, facts = (text, {}) if where == "by" else ("ops", {"reason": text})
    with assert_refused(InputError, "actor" if where == "by" else "reason"):
        appended(CHAIN, Head(), Stamp(NOW, by), "breaker-reset", facts)


@pytest.mark.parametrize("text", ["", "x" * 1000, "é" * 1000, "\U0001f511", "a\tb", "\x00"])
def test_any_other_text_comes_back(text: str) -> None:
    entry = appended(CHAIN, Head(), Stamp(NOW, text), "breaker-reset", {"reason": text, "attempt": 10**9})
    assert decoded(json.loads(json.dumps(encoded(entry))), Entry, "entry") == entry


def test_all_fingerprints_of_a_reply_fit() -> None:
    facts = {"trust": "0" * 64, "fingerprints": " ".join(["f" * 64] * 64)}
    assert appended(CHAIN, Head(), Stamp(NOW, "ops"), "trust-set", facts).facts == facts
