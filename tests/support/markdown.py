"""Contents of the documentation: commands, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.sources import ROOT

__all__ = ["PAGES", "Command", "anchors", "commands", "links"]

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_OPERATORS = frozenset("|&;<>()")


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command of a page: the words of a shell line between its operators."""

    page: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {' '.join(self.words)}"


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands in blocks fenced as `sh`, where each line is one, and `console`, where `$ ` begins one."""
    for language, block in _FENCE.findall(page.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif language != "sh":
            continue
        for line in lines:
            yield from (Command(page, words) for words in _split(line))


def _split(line: str) -> Iterator[tuple[str, ...]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for word in lexer:
        if word and set(word) <= _OPERATORS:
            redirected = word[0] in "<>"
            if not redirected:
                yield from _without_variables(words)
                words = []
        elif redirected:
            redirected = False
        else:
            words.append(word)
    yield from _without_variables(words)


def _without_variables(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Drop `NAME=value` before a command."""
    start = next((n for n, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    if words[start:]:
        yield tuple(words[start:])


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links, fenced blocks left out."""
    yield from _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
