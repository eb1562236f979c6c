"""Names: which are valid."""

from __future__ import annotations

from email.headerregistry import Address
from unicodedata import normalize

import pytest

from broker.errors import InputError
from broker.model.names import account_name, checked_name, guess, mail_address
from tests.support.accounts import assert_refused


@pytest.mark.parametrize("good", ["a", "0", "mzp-1", "a-", "a" * 63])
def test_usable_name_is_kept(good: str) -> None:
    assert account_name(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "-a",
        "A",
        "mzp_1",
        "mzp.1",
        "a/b",
        "..",
        "a" * 64,
        "a ",
        " a",
        "a\n",
        "a\x00",
        "é",
        "\u0661",
        "\uff41",
        "ﬁ",
        "+",
        "*",
    ],
)
def test_anything_else_is_refused(bad: str) -> None:
    with assert_refused(InputError, "account", "is not a name"):
        account_name(bad)


def test_refusal_names_kind_and_what_fits() -> None:
    with pytest.raises(InputError) as caught:
        checked_name("No!", "application")
    assert caught.value.message.startswith("application 'No!'")
    assert "1 to 63" in caught.value.hint


def test_refusal_shows_a_short_beginning() -> None:
    with pytest.raises(InputError) as caught:
        account_name("\x1b[2J" + "x" * 100_000)
    assert len(caught.value.message) < 200
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    "good", ["a@b", "a.b+c@d-e.example", "o'brien=1/x@b.example", "{a}!#$%&*^_`|~-?@b.example", "1@2.3"]
)
def test_plain_mail_address_is_kept(good: str) -> None:
    assert mail_address(good) == good == Address(addr_spec=good).addr_spec


@pytest.mark.parametrize("good", ["büro@példa.example", "घर@डाटा.example", "a@é.c", "用户@例子.example"])
def test_letters_of_every_script_are_kept(good: str) -> None:
    assert mail_address(good) == good
    assert mail_address(normalize("NFD", good)) == good


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "",
            "a",
            "@",
            "a@",
            "@b",
            "a.@b.c",
            ".a@b.c",
            "a..b@b.c",
            "x@.",
            "_@.b",
            "a@b.",
            "a@b..c",
            "a@-b.c",
            "a@b-.c",
        ),
        *(
            "a@b@c",
            "a@b_c.d",
            "a@[1.2.3.4]",
            '"a b"@c.d',
            "a b@c.d",
            "a@b.c\n",
            "a@b.c\r\nBcc: d@e.f",
            "a\u00a0b@c.d",
            "\u202ea@b.c",
            "a\u200b@b.c",
            "\ud800@b.c",
            "a@b\u3002c",
            "\ue000@b.c",
            "€@b.c",
            "é" * 126 + "@b.c",
        ),
        *("a@b.c, d@e.f", "Me <a@b.c>", "a" * 251 + "@b.c", "a\x00@b.c", "a(b)@c.d"),
    ],
)
def test_unusable_mail_address_is_refused(bad: str) -> None:
    with assert_refused(InputError, "is not one mail address"):
        mail_address(bad)


def test_a_guess_is_another_word() -> None:
    assert [guess(word, ["acme", "other"]) for word in ("acne", "acme")] == ["did you mean acme? ", ""]
