"""The partner's answers: bodies, statuses and headers, as values that a handler sends."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import msgspec

HAL: Final = "application/hal+json"
GEO_JSON: Final = "application/vnd.geo+json"
JSON: Final = "application/json"
HTML: Final = "text/html"


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer. `mishap` is a fault while sending it: reset, cut, garbage, drip=SECONDS."""

    status: int
    body: bytes = b""
    media_type: str = HAL
    headers: tuple[tuple[str, str], ...] = ()
    mishap: str = ""
    outcome: str = "ok"
    close: bool = False

    def plus(self, *headers: tuple[str, str]) -> Response:
        """Return the answer with `headers` added at the end."""
        return replace(self, headers=self.headers + headers)


def hal(document: Any, status: int = 200) -> Response:
    """Return `document` as HAL."""
    return Response(status, msgspec.json.encode(document))


def geo_json(document: Any) -> Response:
    """Return `document` as GeoJSON, which lastPosition answers."""
    return Response(200, msgspec.json.encode(document), GEO_JSON)


def error(code: int, message: str, *, now: datetime | None, outcome: str = "") -> Response:
    """Return the API's own error body. `code` is the HTTP status and two digits: 40499 is a 404."""
    body: dict[str, Any] = {"code": code, "uuid": str(uuid.uuid4()), "message": message}
    if now is not None:
        body["timestamp"] = now.isoformat(timespec="milliseconds")
    status = code // 100
    return Response(status, msgspec.json.encode(body), outcome=outcome or f"error {status}")


def gateway_error(status: HTTPStatus, more: str, outcome: str) -> Response:
    """Return the body that IBM API Connect answers before the API is reached."""
    body = {"httpCode": str(status.value), "httpMessage": status.phrase, "moreInformation": more}
    return Response(status, msgspec.json.encode(body), JSON, outcome=outcome)


def certificate_page(problem: str) -> Response:
    """Return nginx's answer to a bad certificate (495) or to none (496): both are sent as HTTP 400."""
    title = "No required SSL certificate was sent" if problem == "missing" else "The SSL certificate error"
    page = (
        f"<html>\r\n<head><title>400 {title}</title></head>\r\n<body>\r\n"
        f"<center><h1>400 Bad Request</h1></center>\r\n<center>{title}</center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Response(400, page.encode(), HTML, outcome=f"certificate {problem}", close=True)


def certificate_json(problem: str) -> Response:
    """Return the body seen on the consumer host. Its HTTP status is unknown; 400 is our choice."""
    body = {"code": "495", "message": "Invalid or expired client certificate"}
    return Response(400, msgspec.json.encode(body), JSON, outcome=f"certificate {problem}", close=True)


def blocked_page() -> Response:
    """Return the HTML page of a web firewall in front of the partner."""
    page = (
        "<!DOCTYPE html><html><head><title>Access Denied</title></head><body><h1>Access Denied</h1>"
        "<p>You don't have permission to access this resource on this server.</p></body></html>"
    )
    return Response(403, page.encode(), HTML, outcome="html-403")
