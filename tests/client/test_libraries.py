"""Promises that the sessions of all libraries keep."""

from __future__ import annotations

import base64
import importlib
import logging
import pickle
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from partner_standin import Standin

from broker.client import following
from broker.copies import replace
from broker.errors import InputError, PartnerUnavailableError, RefusedError
from broker.model.bundle import Bundle
from broker.upstream import current
from tests.support.credential_sets import LOGIN, PASSWORD, publish
from tests.support.forward_proxies import LOGIN as PROXY_LOGIN
from tests.support.forward_proxies import running
from tests.support.keeping import Keeping
from tests.support.sessions import Calls
from tests.support.tls_server import Saying

pytestmark = pytest.mark.slow

Opened = Callable[..., AbstractContextManager[Calls]]
LIBRARIES = ("requests", "httpx", "aiohttp")


@pytest.mark.parametrize("extra", ["httpx", "aiohttp"])
def test_a_missing_extra_is_named(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"broker.client.{extra}")
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'credential-broker\[{extra}\]'"):
        importlib.import_module(f"broker.client.{extra}")


@pytest.fixture
def there(bundle: Bundle, server: Keeping, tmp_path: Path) -> Path:
    publish(tmp_path / "there", replace(bundle, base_url=server.url))
    return tmp_path / "there"


def shapes(bundle: Bundle) -> list[str]:
    pair = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
    return [PASSWORD, quote(PASSWORD), pair, bundle.client_id, PROXY_LOGIN]


def shown(error: BaseException) -> str:
    """Return what a log or an error tracker would take: text, arguments, contexts, and frames with variables."""
    text = repr(error) + str(error) + repr(error.__context__) + repr(error.__cause__)
    request = getattr(error, "request", None) or getattr(error, "request_info", None)
    text += repr(request) + repr(getattr(request, "url", "")) + repr(getattr(request, "headers", ""))
    frames = [frame for frame in traceback.walk_tb(error.__traceback__) if "/tests/" not in frame[0].f_code.co_filename]
    return text + "".join(traceback.StackSummary.extract(iter(frames), capture_locals=True).format())


def failing(calls: Calls, path: str, **given: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # each library has its own
        calls.request("GET", path, **given)
    return caught.value


def test_pages_yields_the_whole_list(partner: Standin, root: Path, opened: Opened) -> None:
    partner.faults.set("echo-client-id")
    with opened(root) as calls:
        pages = calls.pages("/fleets?pageSize=1")
    assert len(pages) == pages[0]["totalPage"] > 1
    assert len({page["currentPage"] for page in pages}) == len(pages)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"_links": {"next": {"href": "https://elsewhere.example/v3"}}}', RefusedError),
        ('{"_links": {"next": {"href": "/v3/same"}}}', PartnerUnavailableError),
        ("[]", PartnerUnavailableError),
        ("<html>", PartnerUnavailableError),
    ],
)
def test_bad_links_and_pages_are_refused(
    partner: Standin, bundle: Bundle, tmp_path: Path, opened: Opened, body: str, error: type[Exception]
) -> None:
    answer = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with Saying(partner, answer) as url:
        publish(tmp_path / "r", replace(bundle, base_url=url))
        with opened(tmp_path / "r") as calls, pytest.raises(error):
            calls.pages("/fleets")


def test_pages_raises_for_an_error_status(partner: Standin, bundle: Bundle, tmp_path: Path, opened: Opened) -> None:
    """Without the reason phrase, which the partner wrote."""
    answer = f"HTTP/1.1 500 {bundle.client_id}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
    with Saying(partner, answer) as url:
        publish(tmp_path / "r", replace(bundle, base_url=url))
        with opened(tmp_path / "r") as calls, pytest.raises(Exception, match="the partner answered 500 for") as caught:
            calls.pages("/fleets")
    assert type(caught.value).__module__.startswith(LIBRARIES)
    assert bundle.client_id not in repr(caught.value) + str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "https://elsewhere.example/fleets",
        "http://127.0.0.1/fleets",
        "//elsewhere.example/fleets",
        "/../v2/fleets",
        "/%2e%2e/v2/fleets",
        "/a%2fb",
        "/fleets?client_id=other",
        "/fleets?client%5fid=other",
    ],
)
def test_request_cannot_leave_the_base_url(server: Keeping, there: Path, opened: Opened, path: str) -> None:
    with opened(there) as calls:
        assert isinstance(failing(calls, path), RefusedError)
    assert not server.got


@pytest.mark.parametrize(
    "given",
    [{"headers": {"Host": "elsewhere.example"}}, {"ssl": False}, {"proxy": "http://127.0.0.1:1"}, {"verify": False}],
    ids=str,
)
def test_the_server_cannot_be_chosen(server: Keeping, there: Path, opened: Opened, given: dict[str, Any]) -> None:
    """Neither which one it is, nor whether it is verified. Each library refuses the arguments that it has."""
    with opened(there) as calls:
        assert isinstance(failing(calls, "/fleets", **given), RefusedError | TypeError)
    assert not server.got


def test_a_session_of_before_a_fork(there: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes would write to the same connections."""
    with opened(there) as calls:
        monkeypatch.setattr(current, "os", SimpleNamespace(getpid=lambda: -1))
        assert "fork" in str(failing(calls, "/fleets"))


def test_redirect_in_the_base_is_followed(server: Keeping, there: Path, bundle: Bundle, opened: Opened) -> None:
    with opened(there) as calls:
        assert calls.get(f"/to?/v3/b?x=1%26client_id={bundle.client_id}") == 200
        targets = [target for _, target, _ in server.got]
    assert len(targets) == 2
    assert targets[1] == f"/v3/b?x=1&client_id={bundle.client_id}"


@pytest.mark.parametrize("to", ["https://elsewhere.example/", "http://{here}/v3/b", "https://{here}/other"])
def test_redirect_out_of_the_base_is_refused(server: Keeping, there: Path, opened: Opened, to: str) -> None:
    here = server.url.removeprefix("https://").removesuffix("/v3")
    with opened(there) as calls:
        assert isinstance(failing(calls, f"/to?{quote(to.format(here=here))}"), RefusedError)
    assert len(server.got) == 1


def test_redirects_are_counted(server: Keeping, there: Path, opened: Opened) -> None:
    with opened(there) as calls:
        error = failing(calls, "/to?/v3/to?/v3/to?/v3/to?/v3/to?/v3/to?/v3/to?/v3/b")
    assert type(error).__name__ == "TooManyRedirects"


@pytest.mark.parametrize("path", ["/slow", "/drip"])
def test_an_exchange_ends_at_its_deadline(
    server: Keeping, there: Path, bundle: Bundle, opened: Opened, path: str
) -> None:
    """Though a byte comes now and then."""
    with opened(there, timeout=(5, 0.5)) as calls:
        error = failing(calls, path)
        server.go.set()
    assert "Timeout" in type(error).__name__
    assert "no answer in time" in str(error)
    assert not [shape for shape in shapes(bundle) if shape in shown(error)]


@pytest.mark.parametrize(
    "fault",
    ["closed-at-once", "wrong-ca", "wrong-host", "certificate-alert", "certificate-eof", "garbage", "cut-mid-body"],
)
def test_failures_show_no_secret(partner: Standin, bundle: Bundle, root: Path, opened: Opened, fault: str) -> None:
    partner.faults.apply(fault)
    with opened(root) as calls:
        error = failing(calls, "/fleets")
    assert type(error).__module__.startswith(LIBRARIES)
    assert not [shape for shape in shapes(bundle) if shape in shown(error)]


def test_logs_hold_no_secret(
    partner: Standin, bundle: Bundle, root: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    """Of any library, at any level; httpx logs URLs, and the partner repeats the client_id in its links."""
    partner.faults.set("echo-client-id")
    with caplog.at_level(logging.DEBUG), opened(root) as calls:
        calls.pages("/fleets?pageSize=1")
        calls.request("GET", "/fleets", params={"client_id": bundle.client_id})
    assert "/fleets" in caplog.text or "aiohttp" in type(calls.session).__module__
    text = "".join(repr(vars(record)) for record in caplog.records) + caplog.text
    assert not [shape for shape in shapes(bundle) if shape in text]


def test_repr_shows_no_secret(bundle: Bundle, root: Path, opened: Opened) -> None:
    with opened(root) as calls:
        text = repr(calls.session) + repr(vars(calls.session)) + repr(vars(calls.session.current))
        with pytest.raises(TypeError, match="secrets"):
            pickle.dumps(calls.session)
    assert not [shape for shape in shapes(bundle) if shape in text]


@pytest.mark.peer("tinyproxy")
def test_sessions_use_the_proxy(partner: Standin, bundle: Bundle, tmp_path: Path, opened: Opened) -> None:
    """The name of the partner is looked up by the proxy."""
    local = bundle.base_url.replace("127.0.0.1", "localhost")
    publish(tmp_path / "r", replace(bundle, base_url=local))
    with running("tinyproxy") as proxy:
        url = f"http://{proxy.host}:{proxy.port}"
        with opened(tmp_path / "r", proxy=url, proxy_login=PROXY_LOGIN) as calls:
            assert calls.get() == 200
        partner.log.clear()
        with opened(tmp_path / "r", proxy=url, proxy_login="fleet:wrong") as calls:
            error = failing(calls, "/fleets")
    assert "the proxy" in str(error)
    assert not [shape for shape in [*shapes(bundle), "fleet:wrong"] if shape in shown(error)]
    assert not partner.log.entries()


def test_unusable_proxy_is_refused(root: Path, opened: Opened) -> None:
    with pytest.raises(InputError), opened(root, proxy="ftp://proxy.example"):
        pass


def test_a_stream_is_sent_once(
    server: Keeping, there: Path, bundle: Bundle, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejected body that was read cannot be sent again."""
    monkeypatch.setattr(following, "CHECK_EVERY", 3600.0)
    with opened(there) as calls:
        publish(there, replace(bundle, base_url=server.url, generation=8))
        name = "content" if "httpx" in type(calls.session).__module__ else "data"
        is_async = hasattr(calls.session, "__aenter__")
        body = _stream([b"a", b"b"]) if is_async else iter([b"a", b"b"])
        assert calls.request("PUT", "/fleets", **{name: body})[0] == 401
        assert len(server.got) == 1
        assert calls.session.manifest.generation == 8


async def _stream(content: list[bytes]) -> Any:
    for piece in content:
        yield piece
