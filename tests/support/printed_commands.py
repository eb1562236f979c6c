"""The commands in messages, hints and next steps: as the source has them, and as a command prints them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import click

from broker.cli.main import NOUNS, cli
from tests.support.sources import ROOT

FIELD: Final = "FIELD"  # stands for a value that is filled in when the text is printed
# What only the reader knows; ACCOUNT, which is nearly always known, only in templates and in `broker.client`
UNKNOWN: Final = (
    "ACCOUNT",
    "ADDRESS",
    "APPLICATION",
    "CONSUMER",
    "DIR",
    "FILE",
    "ID",
    "MAIL",
    "NAME",
    "NUMBER",
    "PATH",
    "SHA256",
    "TEXT",
)
_TEMPLATE: Final = re.compile(r"\{\w*\}")
_COMMAND: Final = re.compile(rf"((?:[A-Z_]+=\S+ )*)\bbroker ((?:{'|'.join(NOUNS)})\b[^\n]*)")
_WORD: Final = re.compile(r"'[^']*'|\S+")
_ENDS: Final = ",;:.)"


@dataclass(frozen=True, slots=True)
class Printed:
    """A command as a text has it, without the prose after it; `fault` says why it cannot be typed."""

    words: tuple[str, ...]
    variables: tuple[str, ...] = ()
    fault: str = ""

    def __str__(self) -> str:
        return " ".join((*self.variables, "broker", *self.words))


def printed(text: str) -> Iterator[Printed]:
    """Yield the commands in `text`. A command takes its words as click would; what follows is prose."""
    for match in _COMMAND.finditer(text):
        yield from _taken(_words(match[2]), tuple(match[1].split()))
        yield from printed(match[2])


def literals() -> Iterator[tuple[str, str]]:
    """Yield every text of the product that names a command, with its place; examples and docstrings apart."""
    for path in sorted((ROOT / "broker").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        apart = {id(part) for node in ast.walk(tree) for part in _not_messages(node)}
        for node in ast.walk(tree):
            text = _text(node) if id(node) not in apart else ""
            if _COMMAND.search(text):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", text


def _not_messages(node: ast.AST) -> Iterator[ast.AST]:
    """Yield docstrings, help, examples, and the constants inside of an f-string."""
    match node:
        case ast.Module() | ast.FunctionDef() | ast.ClassDef() if node.body and isinstance(node.body[0], ast.Expr):
            yield node.body[0].value
        case ast.keyword(arg="example" | "epilog" | "help", value=value):
            yield from ast.walk(value)
        case ast.JoinedStr():
            yield from (part for value in node.values for part in ast.walk(value))


def _text(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str() as value):
            return _TEMPLATE.sub(FIELD, value)
        case ast.JoinedStr(values=values):
            return "".join(v.value if isinstance(v, ast.Constant) else FIELD for v in values)  # type: ignore[misc]
    return ""


def _words(text: str) -> list[str]:
    """Return the words up to the first that ends a phrase, that one included."""
    words: list[str] = []
    for word in _WORD.findall(text):
        if word.startswith("("):
            break
        bare = word.rstrip(_ENDS)
        words.append(bare.removesuffix(FIELD) if bare.startswith("--") else bare)  # " --config FILE", or nothing
        if word[-1] in _ENDS:
            break
    return words


def _taken(words: Sequence[str], variables: tuple[str, ...]) -> Iterator[Printed]:
    noun = cli.get_command(click.Context(cli), words[0])
    if not isinstance(noun, click.Group):
        if noun:
            yield _filled(noun, (words[0],), words[1:], variables)
    elif words[1:] == ["--help"]:
        yield Printed((words[0], "--help"), variables)
    elif len(words) > 1 and words[1] in noun.commands:
        yield _filled(noun.commands[words[1]], (words[0], words[1]), words[2:], variables)
    elif len(words) > 1 and words[1] not in (FIELD, "is", "and"):
        yield Printed(tuple(words[:2]), variables, "there is no such verb")


def _filled(command: click.Command, name: tuple[str, ...], words: Sequence[str], variables: tuple[str, ...]) -> Printed:
    """Return the command with as many words as its parameters take."""
    options = {opt: param for param in command.params if isinstance(param, click.Option) for opt in param.opts}
    missing = [param for param in command.params if isinstance(param, click.Argument) and param.required]
    many = any(isinstance(param, click.Argument) and param.nargs < 0 for param in command.params)
    optional = sum(isinstance(p, click.Argument) and not p.required and p.nargs == 1 for p in command.params)
    needed = {param.opts[0] for param in options.values() if param.required}
    taken, rest = list(name), list(words)
    while rest:
        word = rest[0]
        if word == "--help":
            return Printed((*taken, word), variables)
        if word.startswith("-") and word != "-":
            if word not in options:
                return Printed((*taken, word), variables, f"there is no option {word}")
            length = 1 if options[word].is_flag else 2
            if len(rest) < length:
                return Printed((*taken, word), variables, f"{word} has no value")
            taken += rest[:length]
            needed -= {word}
            rest = rest[length:]
        elif missing or (many and _is_value(word)):
            kind = missing[0].type if missing else None
            chosen = isinstance(kind, click.Choice) and word in kind.choices
            if not chosen and not _is_value(word) and not (len(rest) > 1 and rest[1].startswith("--")):
                return Printed((*taken, word), variables, f"{word!r} is no value")
            missing, taken, rest = missing[1:], [*taken, word], rest[1:]
        elif optional and len(rest) > 1 and rest[1].startswith("--"):
            optional, taken, rest = optional - 1, [*taken, word], rest[1:]
        else:
            break
    lacks = [param.human_readable_name for param in missing] + sorted(needed)
    return Printed(tuple(taken), variables, f"it lacks {', '.join(lacks)}" if lacks else "")


def _is_value(word: str) -> bool:
    """Return whether a word may be a name or a place for one, and not a word of the prose that follows."""
    parts = word.split("/")
    return "." in word.strip(".") or any(part in (FIELD, *UNKNOWN, "-", "acme", "new", "stellantis") for part in parts)
