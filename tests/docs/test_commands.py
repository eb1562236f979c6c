"""Every command in the documentation can be typed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import click
import pytest

from broker.cli.main import NOUNS, cli
from tests.support.markdown import PAGES, Command, commands
from tests.support.sources import ROOT

TYPED = [command for page in PAGES for command in commands(page)]
OURS = [command for command in TYPED if command.words[0] == "broker"]
MAKE = [command for command in TYPED if command.words[0] == "make"]

# Every other program a page names, and what runs it: a test, or a file that does.
SHELL = {
    "cat",
    "chmod",
    "do",
    "done",
    "eval",
    "export",
    "printf",
    "sleep",
    "unset",
    "until",
    "[",
}  # words of the shell itself
RUN_BY = {
    "partner-standin": "tests/docs/test_walkthrough.py",
    "bao": "tests/docs/test_own_vault.py",
    "curl": "tests/docs/test_walkthrough.py",
    "openssl": "tests/docs/test_walkthrough.py",
    "python3": "tests/docs/test_walkthrough.py",
    "keytool": "tests/docs/test_existing_account.py",
    "pip": "tests/docs/test_readme.py",
    "sh": ".ci/run",  # sh .ci/peers
    "bench/numbers": "tests/docs/test_numbers.py",
}


class UntypableError(Exception):
    """A command line that click would not take."""


def parse(words: tuple[str, ...]) -> None:
    """Parse a command line as click would, to the last option, and run nothing. Raise `UntypableError`."""
    command: click.Command = cli
    context, name, rest = None, "broker", list(words[1:])
    while True:
        context = click.Context(command, context, name, **command.context_settings)
        given, rest = _options(command, context, rest)
        if "help" in given or "version" in given:
            return
        if not isinstance(command, click.Group):
            break
        try:
            found, command_found, rest = command.resolve_command(context, rest)
        except (click.UsageError, IndexError):
            raise UntypableError(f"{name} has no command {rest[:1]}") from None
        assert found
        assert command_found
        name, command = found, command_found
    if rest and not context.allow_extra_args:
        raise UntypableError(f"{name} does not take {rest}")


def _options(command: click.Command, context: click.Context, words: list[str]) -> tuple[set[str], list[str]]:
    parser = command.make_parser(context)
    try:
        values, rest, order = parser.parse_args(list(words))
    except click.UsageError as error:
        raise UntypableError(error.format_message()) from None
    given = {param.name or "" for param in order if values.get(param.name or "") not in (None, ())}
    for param in command.params:
        value = values.get(param.name or "")
        if isinstance(param.type, click.Choice) and param.name in given and isinstance(value, str):
            try:
                param.type.convert(value, param, context)
            except click.UsageError as error:
                raise UntypableError(error.format_message()) from None
        prompted = isinstance(param, click.Option) and param.prompt
        if param.required and not prompted and not {param.name, "help", "version"} & given:
            raise UntypableError(f"{command.name} wants {param.make_metavar(context)}")
    return given, rest


@pytest.mark.parametrize("command", OURS, ids=str)
def test_every_broker_command_can_be_typed(command: Command) -> None:
    noun = next((word for word in command.words[1:] if not word.startswith("-")), "")
    if noun in NOUNS and importlib.util.find_spec(f"broker.cli.{noun}") is None:
        pytest.skip(f"there is no broker/cli/{noun}.py yet")
    parse(command.words)


def test_pages_with_our_commands_are_typed() -> None:
    """Another test of this directory names the page, and types it."""
    tests = [file.read_text() for file in Path(__file__).parent.glob("test_*.py") if file.name != Path(__file__).name]
    assert not [page for page in {command.page.name for command in OURS} if not any(page in text for text in tests)]


@pytest.mark.parametrize(
    "line",
    [
        "broker nonsense",
        "broker --nonsense",
        "broker --timeout",
        "broker config nonsense",
        "broker config show --nonsense",
        "broker config show one too many words",
    ],
)
def test_unknown_command_is_found(line: str) -> None:
    if "config" in line and importlib.util.find_spec("broker.cli.config") is None:
        pytest.skip("there is no broker/cli/config.py yet")
    with pytest.raises(UntypableError):
        parse(tuple(line.split()))


@pytest.mark.parametrize("command", MAKE, ids=str)
def test_every_make_target_is_there(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    asked = [word for word in command.words[1:] if "=" not in word]
    assert set(asked) <= set(targets)


def test_every_other_program_is_run() -> None:
    others = {c.words[0] for c in TYPED} - {"broker", "make"} - SHELL
    assert others == set(RUN_BY), "name in RUN_BY what runs it, and nothing else"
    assert not [place for place in RUN_BY.values() if not (ROOT / place).exists()]


def test_the_readme_has_the_two_commands() -> None:
    readme = [" ".join(c.words) for c in TYPED if c.page == ROOT / "README.md"]
    assert "make demo" in readme
    assert "make test" in readme
