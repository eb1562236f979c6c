"""Secrets are hidden in every form that a program writes text in, before a text is cut and after."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.model.redactor import HIDDEN, Redactor, _Form
from broker.model.secret import Secret
from tests.security.test_secret_marks import WAYS
from tests.support.echoing import FORMS, ODD_PASSWORDS
from tests.support.secret_marks import Marks

PASSWORD = "pl4nted:Pa§s/word+1"
SECRETS = st.one_of(
    st.sampled_from(ODD_PASSWORDS), st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=4, max_size=40)
)


def redactor(*secrets: str) -> Redactor:
    return Redactor(map(Secret, secrets))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_hidden_whole(form: str) -> None:
    for secret in (s for s in ODD_PASSWORDS if len(s) >= 4):
        written = FORMS[form](secret)
        shown = redactor(secret).redact(f"[{written}]")
        assert HIDDEN in shown or len(written) < 4, secret
        if form != "base64, within":
            assert shown in (f"[{HIDDEN}]", f"[{written}]"), secret


@given(SECRETS, st.sampled_from(sorted(FORMS)), st.text(max_size=20), st.text(max_size=20), st.integers(8, 60))
@example("hidden12", "raw", "<", ">", 8)
@example("aaaaaaaa", "raw", "aa", "a", 8)
@example("abc", "json, every character", "", "0", 8)
@example("000ß", "upper", "", "", 8)
def test_no_form_of_any_secret_is_left(secret: str, form: str, before: str, after: str, cut: int) -> None:
    """Neither whole nor cut in its middle; a shorter beginning than 8 characters may stay."""
    made, whole, part = redactor(secret), FORMS[form](secret), FORMS[form](secret[:cut])
    for written, least in ((whole, 4), (part, 8)):
        if len(written) >= least:
            shown = made.redact(before + written + after)
            assert written not in shown.replace(HIDDEN, "\0")
            assert made.redact(shown) == shown


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("UTF-16", "base64 in lines", "he:xx")])
def test_an_independent_search_finds_nothing(way: str) -> None:
    """The searcher that the leak tests use knows other encodings than we do, or the same ones otherwise."""
    written = WAYS[way][1](PASSWORD.encode()).decode("latin-1")
    if way == "base64 in lines in JSON":
        written = written.replace("\\n", "")
    assert Marks("password", PASSWORD.encode()).found_in(written.encode("latin-1"))
    shown = redactor(PASSWORD).redact(written)
    assert not Marks("password", PASSWORD.encode()).found_in(shown.encode())


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["Password1234"], "login or Password12... wrong", f"login or {HIDDEN}... wrong"),
        (["Password1234"], "Passwor", "Passwor"),
        (["abcdefgh", "fghijklm"], "abcdefghijklm", HIDDEN),
        (["abcdefgh", "cdef"], "-abcdefgh-", f"-{HIDDEN}-"),
        (["abc"], "abc, abcd, 'ABC'", f"{HIDDEN}, abcd, '{HIDDEN}'"),
        (["1"], "1 of 12", f"{HIDDEN} of 12"),
        (["hidden"], f"{HIDDEN} hidden", f"{HIDDEN} {HIDDEN}"),
        (["a b c d"], "a\r\nb+c%20d", HIDDEN),
        ([""], "nothing", "nothing"),
        ([], "nothing", "nothing"),
        (["planted-1"], "", ""),
    ],
)
def test_how_much_is_hidden(secrets: list[str], text: str, shown: str) -> None:
    assert redactor(*secrets).redact(text) == shown


@pytest.mark.parametrize("text", ["%" * 1000, "&#" * 500, '{"name": "north", "vehicles": 12} ' * 30, "p" * 1000])
def test_most_places_are_passed_over(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A secret is compared only where it may begin: a list of a partner is long, and a hostile one made to be slow."""
    compared: list[int] = []
    end = _Form.end

    def counted(form: _Form, folded: str, start: int) -> int:
        compared.append(start)
        return end(form, folded, start)

    monkeypatch.setattr(_Form, "end", counted)
    made = redactor(PASSWORD)
    assert made.redact(text) == text
    assert made.redact(f"{text}{PASSWORD}") == f"{text}{HIDDEN}"
    assert len(compared) < len(text)


def test_a_redactor_shows_no_secret() -> None:
    made = redactor(PASSWORD)
    assert PASSWORD not in repr(made)
    with pytest.raises(TypeError, match="secrets"):
        pickle.dumps(made)
