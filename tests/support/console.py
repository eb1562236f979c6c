"""The command line inside this process, and every command there is."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import click

from broker.cli.main import NOUNS, cli, run
from broker.compose.graph import Wiring
from tests.support.ended import Ended

__all__ = ["commands", "inside"]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, by the words that are typed."""
    for noun in NOUNS:
        command = cli.get_command(click.Context(cli), noun)
        assert command
        if isinstance(command, click.Group):
            yield from ((f"{noun} {verb}", inner) for verb, inner in command.commands.items())
        else:
            yield noun, command


def inside(
    arguments: Sequence[str],
    *,
    home: Path,
    environment: Mapping[str, str],
    input: bytes = b"",  # noqa: A002  # as subprocess
    wiring: Wiring | None = None,
) -> Ended:
    """Run `broker ARGUMENTS` in this process, in the directory `home`, with nothing but `environment`."""
    written = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(raw, encoding="utf-8", write_through=True) for raw in written)
    given = io.TextIOWrapper(io.BytesIO(input), encoding="utf-8")
    here = Path.cwd()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, environment, clear=True))
        stack.enter_context(patch("sys.stdin", given))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        stack.callback(os.chdir, here)
        os.chdir(home)
        stack.enter_context(patch("broker.compose.graph.PAUSE", 0.0))  # no service runs beside these commands
        code = run(arguments, wiring)
    return Ended(code, *(raw.getvalue().decode() for raw in written))
