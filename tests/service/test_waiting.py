"""The route of waits: its answer, its blanks, and what becomes of a client that goes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import httpx
import msgspec
import pytest

from broker.errors import DeniedError, VaultUnavailableError
from broker.issuing.waits import Asked, Wait
from broker.model.lease import Caller, Consumer
from broker.model.waiting import Ended, Event
from broker.service import waiting as module
from broker.service.app import application
from broker.service.asgi import App, Message
from broker.service.messages import WaitAnswer
from broker.service.waiting import waiting
from tests.service.test_app import TOKEN, Bundles, refused

ASKED = {"account": "mzp-1", "application": "fleet", "generation": 1}


@dataclass
class Waits:
    """Use-cases that note what they were asked."""

    error: Exception | None = None
    over: Ended | None = field(default_factory=lambda: Ended(Event.GENERATION, 2))
    asked: list[Asked] = field(default_factory=list)
    begun: list[Wait] = field(default_factory=list)
    closed: int = 0

    async def begin(self, caller: Caller, asked: Asked) -> Wait:
        self.asked.append(asked)
        if self.error:
            raise self.error
        wait = Wait(caller, asked, Consumer("e", "reader"), None, asyncio.get_running_loop().create_future())
        self.begun.append(wait)
        if self.over:
            wait.over.set_result(self.over)
        return wait

    def close(self, wait: Wait) -> None:
        self.closed += 1

    @property
    def app(self) -> App:
        return application(Bundles(), {("POST", "/v1/wait"): waiting(self)})


def ask(waits: Waits, **more: object) -> httpx.Response:
    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(waits.app), base_url="http://127.0.0.1") as client:
            return await client.post("/v1/wait", headers=TOKEN, **more)  # type: ignore[arg-type]

    return asyncio.run(asyncio.wait_for(asked(), 30))


@pytest.mark.parametrize("event", Event)
def test_each_end_is_answered(event: Event) -> None:
    number = 2 if event is Event.GENERATION else None
    waits = Waits(over=Ended(event, number))
    answer = ask(waits, json={**ASKED, "lease": "text"})
    assert answer.status_code == 200
    assert msgspec.json.decode(answer.content, type=WaitAnswer) == WaitAnswer(event=event.value, generation=number)
    assert answer.json() == {"event": event.value, "generation": number}
    assert waits.closed == 1
    text = waits.asked[0].lease_text
    assert text
    assert (text.reveal(), waits.asked[0].generation) == ("text", 1)


@pytest.mark.parametrize(
    "body",
    [{}, {**ASKED, "generation": -1}, {**ASKED, "generation": "1"}, {**ASKED, "account": "../x"}, {**ASKED, "more": 1}],
)
def test_bad_waits_are_refused(body: dict[str, object]) -> None:
    waits = Waits()
    assert refused(ask(waits, json=body)).status == 400
    assert not waits.asked


@pytest.mark.parametrize(("error", "status"), [(DeniedError("no"), 403), (VaultUnavailableError("too many"), 503)])
def test_a_refusal_comes_before_the_wait(error: Exception, status: int) -> None:
    answer = ask(Waits(error), json=ASKED)
    assert refused(answer).status == status
    assert ("retry-after" in answer.headers) is (status == 503)


class Client:
    """A client of the application, which sees each message that the server would send, and may go."""

    def __init__(self, waits: Waits, *, room: int = 0) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue(room)
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._received.put_nowait({"type": "http.request", "body": msgspec.json.encode(ASKED)})
        headers = [(b"x-vault-token", b"s.token")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/wait",
            "raw_path": b"/v1/wait",
            "query_string": b"",
            "headers": headers,
        }
        self.answer = asyncio.ensure_future(waits.app(scope, self._received.get, self.sent.put))

    def go(self) -> None:
        self._received.put_nowait({"type": "http.disconnect"})


def test_blanks_keep_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)

    async def test() -> None:
        client = Client(Waits(over=None))
        start = await client.sent.get()
        assert start["status"] == 200
        assert (b"x-accel-buffering", b"no") in start["headers"]
        for _ in range(3):
            assert (await client.sent.get())["body"] == b" "
        client.go()
        await client.answer

    asyncio.run(asyncio.wait_for(test(), 30))


def test_a_client_that_goes_is_forgotten() -> None:
    async def test() -> None:
        waits = Waits(over=None)
        client = Client(waits)
        await client.sent.get()
        client.go()
        await client.answer
        assert waits.closed == 1

    asyncio.run(asyncio.wait_for(test(), 30))


def test_a_client_that_takes_nothing_is_forgotten() -> None:
    """It goes before the answer has begun."""

    async def test() -> None:
        waits = Waits(over=None)
        client = Client(waits, room=1)
        client.sent.put_nowait({})  # so nothing can be sent
        while not waits.begun:
            await asyncio.sleep(0)
        client.go()
        await client.answer
        assert waits.closed == 1

    asyncio.run(asyncio.wait_for(test(), 30))
