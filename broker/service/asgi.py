"""The little of ASGI that the service needs: a request, a response, and routes by method and path.

Source: the ASGI specification 3.0, "HTTP & WebSocket". The server parses HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from broker.copies import replace
from broker.errors import InputError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
_LARGEST: Final = 64 * 1024  # bytes of a body
_SECONDS: Final = 10.0  # to send it
JSON: Final = {"content-type": "application/json"}


class GoneError(Exception):
    """The client closed the connection."""


class Response(Struct, frozen=True):
    """An answer. `headers` are names in lower case. `parts` are sent as they come, and closed if the client goes."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: AsyncGenerator[bytes, None] | None = None  # in place of a body


def json_answer(value: object) -> Response:
    """Return the answer 200 with `value` as JSON."""
    return Response(200, msgspec.json.encode(value), JSON)


class Request(Struct, frozen=True):
    """A request, as the server parsed it."""

    scope: MutableMapping[str, Any]
    receive: Receive

    @property
    def method(self) -> str:
        """The method, in upper case."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path as it was written, without the query: no name needs an escape, so each has one spelling."""
        return str(self.scope["raw_path"], "latin-1")

    @property
    def peer(self) -> str | None:
        """The address of the client, None for a unix socket."""
        client = self.scope.get("client")
        return client[0] if client and client[0] else None

    @property
    def names(self) -> tuple[str, ...]:
        """The parts of the path that stand where its route has `*`."""
        return tuple(self.scope["names"])

    @property
    def has_query(self) -> bool:
        """Whether the URL has a query."""
        return bool(self.scope["query_string"])

    def headers(self, name: str) -> list[str]:
        """Return the values of all headers called `name`, which is in lower case."""
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted]

    async def body(self) -> bytes:
        """Return the body; raise `InputError` if it is too large or too slow, `GoneError` if the client left."""
        data, message = b"", await self.receive()
        if message["type"] == "http.request" and not message.get("more_body"):  # usually all of it
            data = message.get("body", b"")
        else:
            data = await self._rest(message)
        if len(data) > _LARGEST:
            raise InputError(f"the body is larger than {_LARGEST} bytes")
        return data

    async def _rest(self, message: Message) -> bytes:
        data = bytearray()
        try:
            async with asyncio.timeout(_SECONDS):
                while True:
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    data += message.get("body", b"")
                    if not message.get("more_body") or len(data) > _LARGEST:
                        return bytes(data)
                    message = await self.receive()
        except TimeoutError:
            raise InputError(f"the body did not arrive within {_SECONDS:g} s") from None


Handler = Callable[[Request], Awaitable[Response]]
Route = tuple[str, str]  # method and path


async def respond(send: Send, response: Response) -> None:
    """Send an answer."""
    headers = {**response.headers, "content-length": str(len(response.body))}
    await _start(send, response.status, headers)
    await send({"type": "http.response.body", "body": response.body})


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


def routed(routes: Mapping[Route, Handler], missing: Callable[[Request, int], Response]) -> App:
    """Return an application that calls the handler of a request's method and path, else answers `missing`.

    A path may have parts `*`, for any text. `missing` gets the status: 404 for an unknown path, 405 for a known one
    with another method.
    """
    paths: dict[tuple[str, ...], dict[str, Handler]] = {}
    for (method, path), handler in routes.items():
        paths.setdefault(tuple(path.split("/")), {})[method] = handler

    def found(parts: tuple[str, ...]) -> tuple[Mapping[str, Handler], tuple[str, ...]]:
        if parts in paths and "*" not in parts:
            return paths[parts], ()
        for pattern, handlers in paths.items():
            if len(pattern) == len(parts) and all(p in ("*", part) for p, part in zip(pattern, parts, strict=True)):
                return handlers, tuple(part for p, part in zip(pattern, parts, strict=True) if p == "*")
        return {}, ()

    async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")  # the server then goes on without it
        request = Request(scope, receive)
        handlers, scope["names"] = found(tuple(request.path.split("/")))
        if request.method in handlers:
            response = await handlers[request.method](request)
        elif handlers:
            refused = missing(request, 405)
            response = replace(refused, headers={**refused.headers, "allow": ", ".join(handlers)})
        else:
            response = missing(request, 404)
        await (_send_parts(response, response.parts, receive, send) if response.parts else respond(send, response))

    return application


async def _send_parts(response: Response, parts: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
    """Send the parts until they end or the client goes; close them."""

    async def send_all() -> None:
        await _start(send, response.status, response.headers)
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(send_all()), asyncio.create_task(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await parts.aclose()
