"""Requests and URLs: nothing leaves the base URL, and no other client_id passes."""

from __future__ import annotations

import contextlib
from urllib.parse import unquote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InputError, RefusedError
from broker.model.authentication import Authentication, Basic, ClientId, Values
from broker.model.authentication.client_id import without_client_id
from broker.model.secret import Secret
from broker.partners.request import as_curl, as_http, base_url, inside, join, recipe

BASE = "https://api.example.com/connectedcar/v3"
QUERY = Authentication()
HEADER = Authentication((Basic(), ClientId(header="X-IBM-Client-Id")))


def values(client_id: str) -> Values:
    return Values("login", client_id, {"password": Secret("planted")})


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/", f"{BASE}/"),
        ("/fleets", f"{BASE}/fleets"),
        ("/fleets/", f"{BASE}/fleets/"),
        ("/fleets?pageSize=1&x=%2e%2e/", f"{BASE}/fleets?pageSize=1&x=%2e%2e/"),
        ("/véhicules/a b", f"{BASE}/v%C3%A9hicules/a%20b"),
        ("/a%20b", f"{BASE}/a%20b"),
        ("/...", f"{BASE}/..."),
        ("/https://x".replace("//", "/"), f"{BASE}/https:/x"),
    ],
)
def test_path_is_joined_to_the_base(path: str, url: str) -> None:
    assert join(BASE, path) == url


@pytest.mark.parametrize(
    "path",
    [
        "",
        "fleets",
        "//elsewhere.example",
        "https://elsewhere.example/",
        "/..",
        "/.",
        "/a/../b",
        "/a/./b",
        "/a//b",
        "/%2e%2e/b",
        "/%2E./b",
        "/.%2e/b",
        "/%252e%252e/b",
        "/%25252e%25252e/b",
        "/..;x=1/b",
        "/..%3bx/b",
        "/a%2fb",
        "/a%2Fb",
        "/a%252fb",
        "/a%5cb",
        "/a\\..\\b",
        "/a\0b",
        "/a%00b",
        "/a%0d%0ab",
        "/a\r\nX: y",
        "/a?x=1\r\ny",
        "/a#b",
        "/a?x#b",
        "/%25252525252525252e",
    ],
)
def test_path_out_of_the_base_is_refused(path: str) -> None:
    with pytest.raises(RefusedError) as caught:
        join(BASE, path)
    assert caught.value.hint


@given(st.text(alphabet="/.%2eEfF5cC;\\?#:@a ", max_size=24))
def test_joined_paths_stay_below_the_base(text: str) -> None:
    try:
        url = join(BASE, text)
    except RefusedError:
        return
    route = url.partition("?")[0]
    for _ in range(6):
        assert urljoin(route, route).startswith(BASE + "/")
        assert ".." not in route.replace("\\", "/").split("/")
        route = unquote(route)


@pytest.mark.parametrize("url", [BASE, f"{BASE}/fleets?pageToken=x", f"{BASE}?x=1"])
def test_link_below_the_base_is_accepted(url: str) -> None:
    assert inside(BASE, url) == url


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/connectedcar/v2/fleets",
        "https://api.example.com/connectedcar/v33",
        "https://api.example.com:444/connectedcar/v3/x",
        "https://api.example.com@elsewhere.example/connectedcar/v3/x",
        "https://u@api.example.com/connectedcar/v3/x",
        "http://api.example.com/connectedcar/v3/x",
        "https://api.example.com.elsewhere.example/connectedcar/v3/x",
        f"{BASE}/../v2",
        f"{BASE}/%2e%2e/v2",
        "/connectedcar/v3/x",
        "",
    ],
)
def test_link_out_of_the_base_is_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        inside(BASE, url)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("", ""),
        ("a=1&b=2", "a=1&b=2"),
        ("client_id=ours&a=1", "a=1"),
        ("a=1&client%5fid=ours", "a=1"),
        ("a=1&Client_ID=%6furs&b=%20", "a=1&b=%20"),
        ("my_client_id=x", "my_client_id=x"),
        ("a=client_id%3Dx", "a=client_id%3Dx"),
        ("a=1;b=2", "a=1;b=2"),
    ],
)
def test_only_our_client_id_is_dropped(given_: str, kept: str) -> None:
    assert without_client_id(given_, "client_id", "ours") == kept


@pytest.mark.parametrize(
    "query",
    [
        "client_id=other",
        "client_id=",
        "client_id",
        "client%5fid=other",
        "c%6Cient_id=other",
        "CLIENT_ID=other",
        "+client_id=other",
        "client_id=ours&client_id=other",
        "a=1;client_id=other",
        "a=1;client_id=ours",
        "client_id=ours%20",
        "client_id=OURS",
    ],
)
def test_other_client_id_is_refused_decoded(query: str) -> None:
    with pytest.raises(RefusedError) as caught:
        without_client_id(query, "client_id", "ours")
    assert "other" not in caught.value.message


def test_recipe_holds_no_client_id() -> None:
    made = recipe(BASE, QUERY, "GET", "/fleets?a=1", [("pageSize", "1&2")])
    assert made.url == f"{BASE}/fleets?a=1&pageSize=1%262"
    assert QUERY.signed(made, values("o&urs")).url == f"{made.url}&client_id=o%26urs"
    assert HEADER.signed(recipe(BASE, HEADER, "GET", "/fleets"), values("ours")).url == f"{BASE}/fleets"


def test_client_id_is_not_sent_twice() -> None:
    made = recipe(BASE, QUERY, "GET", "/fleets?a=1&client_id=ours")
    assert QUERY.signed(made, values("ours")).url == f"{BASE}/fleets?a=1&client_id=ours"


@pytest.mark.parametrize("method", ["get", "TRACE", "CONNECT", "GET / HTTP/1.1\r\n", ""])
def test_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(InputError):
        recipe(BASE, QUERY, method, "/fleets")


def test_client_id_as_a_parameter_is_refused() -> None:
    with pytest.raises(RefusedError):
        QUERY.signed(recipe(BASE, QUERY, "GET", "/fleets", [("client_id", "other")]), values("ours"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (BASE, BASE),
        (BASE + "/", BASE),
        ("https://API.Example.com:443/v3", "https://api.example.com/v3"),
        ("https://api.example.com", "https://api.example.com"),
        ("https://127.0.0.1:8443/x", "https://127.0.0.1:8443/x"),
        ("https://[::1]:8443/x", "https://[::1]:8443/x"),
    ],
)
def test_base_url_is_normalized(text: str, kept: str) -> None:
    assert base_url(text) == kept
    assert base_url(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.example.com",
        "http://api.example.com",
        "http://127.0.0.1:1",
        "ftp://x",
        "https://",
        "https:///v3",
        "https://u@h/v3",
        "https://u:p@h/v3",
        "https://h/v3?x",
        "https://h/v3#x",
        "https://h/v3?",
        "https://h/a/../b",
        "https://h/a//b",
        "https://h/%2e%2e",
        "https://h:0/",
        "https://h:99999/",
        "https://h:x/",
        "https://h_x/",
        "https://-h/",
        "https://h /",
        "https://h\n/",
        "https://h\\x/",
        "https://é.example/",
        "https://[::1/",
        "https://h\0/",
    ],
)
def test_bad_base_url_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        base_url(text)
    assert caught.value.hint


@given(st.text(max_size=60))
def test_base_url_never_raises_anything_else(text: str) -> None:
    with contextlib.suppress(InputError):
        base_url("https://" + text)


def test_curl_command_has_placeholders_only() -> None:
    made = recipe(BASE, QUERY, "GET", "/fleets", [("pageSize", "1")])
    text = as_curl(made, QUERY)
    assert text.startswith("curl \\\n  --request GET \\\n  --cacert ca.crt")
    assert "--user '<login>:<password>'" in text
    assert text.endswith(f"--get \\\n  --data-urlencode 'client_id=<client_id>' \\\n  '{BASE}/fleets?pageSize=1'")


def test_http_request_has_placeholders_only() -> None:
    lines = as_http(recipe(BASE, HEADER, "POST", "/fleets/1"), HEADER).splitlines()
    assert lines == [
        "POST /connectedcar/v3/fleets/1 HTTP/1.1",
        "Host: api.example.com",
        "Accept: application/json",
        "Authorization: Basic <base64 of login:password>",
        "X-IBM-Client-Id: <client_id>",
    ]
