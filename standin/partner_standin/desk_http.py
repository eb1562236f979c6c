"""The desk's HTTP, plain and on loopback: CSRs in, replies out, and controls for tests.

Any process that reaches this port controls the stand-in. It holds no valuable secret, and serves this machine only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from partner_standin.controls import CONTROLS
from partner_standin.csr import Reason, RejectedError
from partner_standin.desk import DeskRequest, UnknownRequestError
from partner_standin.desk_request import Asked, Parts, Row, json_answer
from partner_standin.faults import UnknownFaultError
from partner_standin.listener import Handler, Listener
from partner_standin.registry import UnknownLoginError
from partner_standin.responses import Response

LONGEST_WAIT: Final = 60.0  # seconds that ?wait=1 holds a caller
REPLY_TYPES: Final[Mapping[str, str]] = {
    "reply.zip": "application/zip",
    "reply.eml": "message/rfc822",
    "certificate.der": "application/pkix-cert",
}


class _DeskHandler(Handler):
    """Find the function for a request, and turn its errors into answers."""

    server: DeskListener

    def reply(self) -> Response:
        """Answer one request to the desk."""
        path, _, query = self.path.partition("?")
        segments = tuple(path.strip("/").split("/"))
        asked = Asked(self.server.parts, self.server.url, self.body(), dict(parse_qsl(query, keep_blank_values=True)))
        try:
            return _dispatch(self.command, segments, asked)
        except RejectedError as rejected:
            return _rejected(rejected.reasons)
        except (UnknownRequestError, UnknownLoginError) as missing:
            return json_answer({"error": str(missing)}, 404)
        except UnknownFaultError as wrong:
            return json_answer({"error": str(wrong)}, 422)
        except ValueError as wrong:
            return json_answer({"error": str(wrong)}, 400)


class DeskListener(Listener):
    """The desk's port."""

    def __init__(self, address: tuple[str, int], parts: Parts) -> None:
        super().__init__(address, _DeskHandler)
        self.parts = parts

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}"


def _dispatch(method: str, segments: tuple[str, ...], asked: Asked) -> Response:
    fitting = [row for row in _TABLE if _fits(row[1], segments)]
    for verb, template, run in fitting:
        if verb == method:
            return run(asked, tuple(s for t, s in zip(template.split("/"), segments, strict=True) if t == "*"))
    if fitting:
        return json_answer({"error": "this address does not take this method"}, 405)
    return json_answer({"error": "no such address", "addresses": [f"{verb} /{path}" for verb, path, _ in _TABLE]}, 404)


def _fits(template: str, segments: tuple[str, ...]) -> bool:
    parts = template.split("/")
    return len(parts) == len(segments) and all(p in ("*", s) for p, s in zip(parts, segments, strict=True))


def _rejected(reasons: tuple[Reason, ...]) -> Response:
    return json_answer({"status": "rejected", "reasons": reasons}, 422)


def _submit(asked: Asked, _: tuple[str, ...]) -> Response:
    options = {name: value for name, value in asked.query.items() if name not in ("wait", "reply")}
    request = asked.parts.desk.submit(asked.body, options)
    wanted = asked.query.get("reply", "")
    if not (wanted or asked.query.get("wait") == "1"):
        return json_answer(_described(asked, request), HTTPStatus.ACCEPTED)
    deadline = time.monotonic() + LONGEST_WAIT
    while request.reply is None and time.monotonic() < deadline:
        time.sleep(0.02)
        request = asked.parts.desk.request(request.number)
    if not wanted:
        return json_answer(_described(asked, request))
    names = {"zip": "reply.zip", "eml": "reply.eml", "pem": "certificate.pem", "der": "certificate.der"}
    if wanted not in names:
        raise ValueError("reply takes zip, eml, pem or der")
    return _part(asked, (request.number, names[wanted]))


def _part(asked: Asked, names: tuple[str, ...]) -> Response:
    number, name = names
    request = asked.parts.desk.request(number)
    reply = request.reply
    if reply is None:
        return json_answer({"status": "waiting", "error": "this request is not signed yet"}, HTTPStatus.CONFLICT)
    if name == "reply.zip":
        body = reply.zip()
    elif name == "certificate.der":
        body = reply.der
    elif name == "reply.eml":
        link = f"{asked.url}/desk/requests/{number}/certificate.pem"
        body = reply.mail(link, to=request.submitted.sender, in_reply_to=request.submitted.message_id)
    elif name in reply.files():
        body = reply.files()[name]
    else:
        return json_answer({"error": "a reply has no such part", "parts": [*REPLY_TYPES, *reply.files()]}, 404)
    return Response(200, body, REPLY_TYPES.get(name, "text/plain"))


def _described(asked: Asked, request: DeskRequest) -> Mapping[str, Any]:
    here = f"{asked.url}/desk/requests/{request.number}"
    return {
        "id": request.number,
        "status": request.status,
        "login": request.submitted.login,
        "received": request.received,
        "due": request.due,
        "links": {"self": here, "zip": f"{here}/reply.zip", "mail": f"{here}/reply.eml"},
    }


_TABLE: Final[tuple[Row, ...]] = (
    ("POST", "desk/requests", _submit),
    ("GET", "desk/requests", lambda a, _: json_answer([_described(a, request) for request in a.parts.desk.requests()])),
    ("GET", "desk/requests/*", lambda a, names: json_answer(_described(a, a.parts.desk.request(names[0])))),
    ("GET", "desk/requests/*/*", _part),
    *CONTROLS,
)
