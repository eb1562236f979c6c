"""Hide secrets in text from elsewhere: a partner's answer, a log line."""

import base64
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Final, NoReturn
from urllib.parse import quote

from broker.model.secret import Secret

HIDDEN: Final = "<hidden>"
_CUT: Final = 8  # characters; a beginning this long is hidden too, since texts get cut off
_SHORT: Final = 4  # characters; shorter secrets are hidden only as whole words, else every message would be garbled
_CHARSETS: Final = ("utf-8", "cp1252", "latin-1", "ascii")
_HEAD: Final = 3  # characters by which a place is looked up: of a long text nearly all are passed over
_BLANKS: Final = ("\t", "\n", "\r", "\r\n", "\u00a0", "+")


class Redactor:
    """Replace secrets in a text by `<hidden>`, whole or as a beginning of 8 or more characters.

    A secret is looked for as it is, in base64 and hex, and read in the wrong charset. Each of its characters may be
    escaped as in HTML, URLs, JSON or Python, twice over too, in any mixture and in either case. Redact first, shorten
    afterwards.
    """

    __slots__ = ("_forms", "_short")

    def __init__(self, secrets: Iterable[Secret[str]]) -> None:
        self._forms: dict[str, list[_Form]] = {}
        self._short: dict[str, list[_Form]] = {}  # by their first character
        for text in {text for secret in secrets for text in _texts(secret.reveal())}:
            form = _Form(text)
            for head in form.heads if len(text) >= _HEAD else ():
                self._forms.setdefault(head, []).append(form)
            for first in {head[0] for head in form.heads} if len(text) < _HEAD else ():
                self._short.setdefault(first, []).append(form)

    def redact(self, text: str) -> str:
        """Return `text` without the secrets."""
        folded = text.lower() if text.isascii() else "".join(map(_folded, text))
        shown, end = [], 0
        heads, firsts = self._forms, {*self._short, HIDDEN[0]}
        for start, first in enumerate(folded):
            head = folded[start : start + _HEAD]
            if head not in heads and first not in firsts:
                continue
            forms = [*heads.get(head, ()), *self._short.get(first, ())]
            reached = max((form.end(folded, start) for form in forms), default=0)
            if not reached and text.startswith(HIDDEN, start):
                shown.append(text[end:start])
                end = start
                reached = start + len(HIDDEN)
            if reached > end:
                shown += [text[end:start], HIDDEN] if start >= end else []
                end = reached
        return "".join([*shown, text[end:]])

    def __reduce__(self) -> NoReturn:
        raise TypeError("a redactor holds secrets, so it cannot be pickled or copied")


class _Form:
    """One text to hide, as all the ways of writing each of its characters."""

    __slots__ = ("_enough", "_spelled")

    def __init__(self, text: str) -> None:
        self._spelled = [_spellings(character) for character in text]
        self._enough = min(len(text), _CUT)

    @property
    def heads(self) -> set[str]:
        """The beginnings of all ways to write this text, shorter only for a shorter text."""
        heads = {""}
        for spellings in self._spelled[:_HEAD]:
            starts = {spelling[:_HEAD] for some in spellings.values() for spelling in some}
            heads = {h if len(h) == _HEAD else (h + start)[:_HEAD] for h in heads for start in starts}
        return heads

    def end(self, folded: str, start: int) -> int:
        """Return where this text, or a long enough beginning of it, ends in `folded`; 0 if none begins at `start`."""
        ends, found = {start}, 0
        for count, spellings in enumerate(self._spelled, 1):
            ends = {
                end + len(spelling)
                for end in ends
                for spelling in spellings.get(folded[end : end + 1], ())
                if folded.startswith(spelling, end)
            }
            if not ends:
                break
            found = max(ends) if count >= self._enough else 0
        certain = len(self._spelled) >= _SHORT or found - start >= _CUT  # a short one, if it is escaped
        return found if certain or _is_word(folded, start, found) else 0


def _texts(secret: str) -> Iterator[str]:
    """Yield `secret` as texts to look for: as it is, misread, and encoded as a whole."""
    if secret:
        yield secret
    misread = {
        form.encode(written, errors).decode(read, errors)
        for form in {unicodedata.normalize(name, secret) for name in ("NFC", "NFD")} | {secret}
        for errors in ("replace", "ignore")
        for written in _CHARSETS
        for read in _CHARSETS
    }
    octets = {secret.encode(charset, "replace") for charset in _CHARSETS}
    encoded = {text for value in octets for text in (*_base64(value), value.hex())}
    yield from (text for text in misread | encoded if len(text) >= _SHORT)


def _base64(octets: bytes) -> Iterator[str]:
    """Yield the characters that depend on `octets` alone, for each of the three offsets they can begin at."""
    for shift in range(3):
        first, last = -(-shift * 8 // 6), (shift + len(octets)) * 8 // 6
        encoded = base64.b64encode(b"\0" * shift + octets).decode()[first:]
        for text in {encoded[: last - first], encoded.rstrip("="), encoded}:
            yield text
            yield text.translate({ord("+"): "-", ord("/"): "_"})


@cache
def _spellings(character: str) -> Mapping[str, Sequence[str]]:
    """Return the ways to write `character`, in folded case, by their first letter: itself, escaped, escaped twice."""
    from html import escape  # only here, as the entities: start-up counts

    once = {character, character.upper(), *_html(character), *_url(character), *_backslash(character)}
    if character == " ":
        once |= set(_BLANKS)
    twice = {escape(text) for text in once} | {json.dumps(text)[1:-1] for text in once}
    twice |= {quote(text, safe="", errors="surrogatepass") for text in once}
    found: dict[str, list[str]] = {}
    for spelling in {"".join(map(_folded, text)) for text in once | twice}:
        found.setdefault(spelling[0], []).append(spelling)
    return found


def _html(character: str) -> Iterator[str]:
    number = ord(character)
    yield from (f"&#{number};", f"&#{number:03};", f"&#x{number:x};", f"&#x{number:04x};")
    yield from (f"&{name}" for name in _names().get(character, ()))


@cache
def _names() -> dict[str, list[str]]:
    from html.entities import html5

    found: dict[str, list[str]] = {}
    for name, character in html5.items():
        found.setdefault(character, []).append(name)
    return found


def _url(character: str) -> Iterator[str]:
    for charset in ("utf-8", "cp1252", "latin-1"):
        octets = character.encode(charset, "ignore")
        if octets:
            yield "".join(f"%{octet:02x}" for octet in octets)
            yield "".join(f"\\x{octet:02x}" for octet in octets)


def _backslash(character: str) -> Iterator[str]:
    """Yield the escapes of JSON, JavaScript and Python; JSON writes what is beyond 16 bits as two surrogates."""
    number, wide = ord(character), character.encode("utf-16-be", "surrogatepass").hex()
    yield from ("".join(f"\\u{wide[n : n + 4]}" for n in range(0, len(wide), 4)), f"\\u{{{number:x}}}")
    yield f"\\U{number:08x}"
    if not character.isalnum():
        yield f"\\{character}"


def _folded(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _is_word(text: str, start: int, end: int) -> bool:
    return not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())
