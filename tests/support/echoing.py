"""A partner that repeats what it was sent, in every form and place an answer has; for what must not be repeated on."""

from __future__ import annotations

import base64
import html
import json
import string
from collections.abc import Callable, Mapping
from urllib.parse import quote, quote_plus

from broker.model.authentication import PASSWORD
from broker.upstream.credentials import Credentials

__all__ = ["FORMS", "ODD_PASSWORDS", "PLACES", "answer", "repeated", "traces"]

ODD_PASSWORDS = [
    "s3cr",
    "abc",
    "hidden",
    "client id",
    "Passw0rt1234",
    "pl4nted:Pa§s/word+1",
    "gänseblümchen-äöü",
    "<&\"'+%/ >;#=\\",
    "p&lt;q&amp;r",
    "%41%42%43%2",
    "\\u0041\\x42 \\\\n",
    "😀🔑👩‍👧 schlüssel",
    "пароль-пароля",
    "a b  c d",
    "x" * 200,
    'plänted-pass\\word "quoted" \'n all: -é',
]

FORMS: Mapping[str, Callable[[str], str]] = {
    "raw": str,
    "upper": str.upper,
    "html": html.escape,
    "html, every character": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "html, hexadecimal": lambda s: "".join(f"&#x{ord(c):X};" for c in s),
    "html, names": lambda s: "".join({"<": "&lt;", "&": "&amp;", '"': "&quot;", "'": "&#039;"}.get(c, c) for c in s),
    "html, non-ASCII": lambda s: s.encode("ascii", "xmlcharrefreplace").decode(),
    "html, twice": lambda s: html.escape(html.escape(s)),
    "url": lambda s: quote(s, safe=""),
    "url, form": quote_plus,
    "url, every octet": lambda s: "".join(f"%{octet:02X}" for octet in s.encode()),
    "url, Latin-1": lambda s: quote(s, safe="", encoding="latin-1", errors="replace"),
    "url, twice": lambda s: quote(quote(s, safe=""), safe=""),
    "json": lambda s: json.dumps(s)[1:-1],
    "json, as PHP": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "json, every character": lambda s: "".join(
        json.dumps(c)[1:-1] if ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in s
    ),
    "json in html": lambda s: html.escape(json.dumps(s)[1:-1]),
    "html in url": lambda s: quote(html.escape(s), safe=""),
    "repr": lambda s: repr(s)[1:-1],
    "repr of octets": lambda s: repr(s.encode())[2:-1],
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64, no padding": lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
    "base64, within": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "hex": lambda s: s.encode().hex(),
    "read as Latin-1": lambda s: s.encode().decode("latin-1"),
    "read as Windows-1252": lambda s: s.encode().decode("cp1252", "replace"),
    "Latin-1 read as UTF-8": lambda s: s.encode("latin-1", "replace").decode("utf-8", "replace"),
    "read as ASCII": lambda s: s.encode().decode("ascii", "replace"),
    "as ASCII": lambda s: s.encode("ascii", "replace").decode(),
    "ASCII alone": lambda s: s.encode("ascii", "ignore").decode(),
}


def answer(status: int, body: bytes, kind: str = "application/json") -> bytes:
    """Return a whole answer."""
    head = f"HTTP/1.1 {status} no\r\nContent-Type: {kind}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


PLACES: Mapping[str, Callable[[bytes], bytes]] = {
    "message": lambda s: answer(401, json.dumps({"message": s.decode(errors="replace")}).encode()),
    "page": lambda s: answer(403, b"<title>" + s + b"</title>", "text/html"),
    "reason phrase": lambda s: b"HTTP/1.1 401 " + s + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "status line": lambda s: b"HTTP/1.1 " + s + b"\r\n\r\n",
    "first line": lambda s: s + b"\r\n\r\n",
    "header line": lambda s: b"HTTP/1.1 500 no\r\n" + s + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "chunk line": lambda s: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + s + b"\r\n",
    "length": lambda s: b"HTTP/1.1 500 no\r\nConnection: close\r\nContent-Length: " + s + b"\r\n\r\n{}",
    "encoding": lambda s: (
        b"HTTP/1.1 500 no\r\nConnection: close\r\nContent-Encoding: gzip, " + s + b"\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "charset": lambda s: answer(500, b"\xff\xfe{", "application/json; charset=" + s.decode("latin-1")),
    "not JSON": lambda s: answer(200, b"{" + s),
    "redirect": lambda s: (
        b"HTTP/1.1 302 no\r\nConnection: close\r\nContent-Length: 0\r\nLocation: https://[" + s + b"\r\n\r\n"
    ),
    "redirect elsewhere": lambda s: (
        b"HTTP/1.1 302 no\r\nConnection: close\r\nContent-Length: 0\r\nLocation: //elsewhere.example/" + s + b"\r\n\r\n"
    ),
    "link": lambda s: answer(
        200, json.dumps({"_links": {"next": {"href": "https://[" + s.decode(errors="replace")}}}).encode()
    ),
    "cut body": lambda s: b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + s,
}


def _basic(credentials: Credentials) -> str:
    return credentials.headers()["Authorization"]


def repeated(form: str, credentials: Credentials) -> str:
    """Return the secrets of a request, as a partner that writes them in `form` would say them."""
    basic = _basic(credentials)
    secrets = (credentials.secrets[PASSWORD].reveal(), basic, credentials.client_id)
    return "no " + " / ".join(FORMS[form](secret) for secret in secrets) + " here"


def traces(text: str, credentials: Credentials) -> list[str]:
    """Return the forms in which a secret is in `text`, whole or as a beginning of 8 characters."""
    text = text.replace("<hidden>", "\0")
    basic = _basic(credentials).removeprefix("Basic ")
    return [
        f"{form}: {part}"
        for form, write in FORMS.items()
        for secret in (credentials.secrets[PASSWORD].reveal(), basic, credentials.client_id)
        for part in {write(secret), write(secret[:8])}
        if len(part) >= min(4, len(secret)) and _is_in(part, text)
    ]


def _is_in(part: str, text: str) -> bool:
    if len(part) >= 4:
        return part.lower() in text.lower()
    letters = string.ascii_letters + string.digits
    at = text.find(part)
    return at >= 0 and not (text[at - 1 : at] in letters or text[at + len(part) : at + len(part) + 1] in letters)
