"""The parts of an authentication: what each adds, needs, shows, and has curl do."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from broker.copies import replace
from broker.errors import BrokerError, InputError, RefusedError
from broker.model.authentication import PARTS, Authentication, Basic, ClientId, Part, Request, Values
from broker.model.secret import Secret

VALUES = Values("MZP1", "planted-id", {"password": Secret("planted-password")})
ASKED = Request("GET", "https://api.example.com/v3/fleets?a=1", {"Accept": "application/json"})
EXAMPLES: dict[str, list[Part]] = {
    "basic": [Basic()],
    "client_id": [ClientId(query="client_id"), ClientId(header="X-IBM-Client-Id")],
}
EVERY = [pytest.param(part, id=f"{kind}{index}") for kind in EXAMPLES for index, part in enumerate(EXAMPLES[kind])]


def test_every_part_has_an_example() -> None:
    assert EXAMPLES.keys() == PARTS.keys()


@pytest.mark.parametrize("part", EVERY)
def test_a_part_adds_to_a_copy(part: Part) -> None:
    before = replace(ASKED, headers=dict(ASKED.headers))
    made = part.add(ASKED, VALUES)
    assert before == ASKED != made
    assert "planted" not in repr(made)


@pytest.mark.parametrize("part", EVERY)
def test_a_part_shows_where_it_adds(part: Part) -> None:
    """Header names and query names of what is shown are those of what is sent; no value is."""
    sent, shown = part.add(ASKED, VALUES), part.show(ASKED)
    assert list(shown.headers) == list(sent.headers)
    assert [p.partition("=")[0] for p in shown.url.split("&")] == [p.partition("=")[0] for p in sent.url.split("&")]
    assert shown != sent


@pytest.mark.parametrize("part", EVERY)
def test_a_part_needs_what_it_says(part: Part) -> None:
    """A check returns its error: a frame that raises would hold the value."""
    for check in part.needs.values():
        assert isinstance(check(""), InputError)
    with pytest.raises(InputError, match=r"empty|no secret"):
        Authentication((part,)).check(Values("", "", {}))


@pytest.mark.parametrize("part", EVERY)
def test_curl_options_hold_placeholders(part: Part) -> None:
    options = part.curl(Authentication((part,)).placeholders)
    assert options
    assert "planted" not in str(options)
    assert "<" in str(options)


def test_parts_compose_in_their_order() -> None:
    made = Authentication().signed(ASKED, VALUES)
    pair = base64.b64encode(b"MZP1:planted-password").decode()
    assert made.headers == {"Accept": "application/json", "Authorization": f"Basic {pair}"}
    assert made.url == "https://api.example.com/v3/fleets?a=1&client_id=planted-id"
    assert made.target == "/v3/fleets?a=1&client_id=planted-id"


def test_a_header_replaces_one_of_its_name() -> None:
    asked = replace(ASKED, headers={"authorization": "theirs", "X": "y"})
    assert [*asked.with_header("Authorization", "ours").headers] == ["X", "Authorization"]


@pytest.mark.parametrize(
    "refused",
    [
        lambda: ASKED.with_header("X", "planted\r\nY: z"),
        lambda: ASKED.with_header("X", "plänted"),
        lambda: replace(ASKED, body=None).content,
        lambda: VALUES.secret("other"),
    ],
)
def test_misuse_is_refused_without_the_value(refused: Callable[[], object]) -> None:
    with pytest.raises(BrokerError) as caught:
        refused()
    assert "planted" not in f"{caught.value}{caught.value.hint}"
    assert isinstance(caught.value, InputError | RefusedError)
