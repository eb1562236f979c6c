"""The command line inside this process, every command there is, and a good command line for each."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from unittest.mock import patch

import click

from broker.cli.main import NOUNS, cli, run
from broker.compose import Wiring
from tests.support.system import Ended

__all__ = ["GOOD", "Good", "commands", "inside"]


@dataclass(frozen=True, slots=True)
class Good:
    """A command line that succeeds in `state` of a saved, with `input` typed. `vault` says whether it asks one."""

    line: str
    state: str = "promoted"
    input: bytes = b""
    vault: bool = True


# {account}, {application} and {number} stand where a test puts something else; {ca} is a CA's fingerprint.
GOOD: Final[Mapping[str, Good]] = MappingProxyType(
    {
        "demo": Good("", vault=False),
        "init": Good("--vault embedded --out made.toml", vault=False),
        "status": Good("{account}"),
        "doctor": Good(""),
        "explain": Good("{account} --generation {number}"),
        "account add": Good(
            "{account} --environment stand-in --base-url https://partner.example/v3 --login MZP0000002 "
            "--subject C=FR --subject ST=Paris --subject L=Paris --subject O=New --subject email=a@new.example",
            state="empty",
        ),
        "account list": Good(""),
        "account show": Good("{account}"),
        "app add": Good("{account}/{application}"),
        "app set": Good("{account}/{application} --client-id 11111111-1111-4111-8111-111111111111"),
        "app list": Good("{account}"),
        "app remove": Good("{account}/{application} --yes"),
        "password set": Good("{account} --password-file -", input=b"another\n"),
        "trust set": Good("{account} reply.zip --accept-ca {ca}"),
        "csr new": Good("{account}"),
        "csr show": Good("{account} --number {number}"),
        "csr lint": Good("good.csr", vault=False),
        "csr submit": Good("{account} --out draft.eml", state="requested"),
        "csr cancel": Good("{account} --yes", state="requested"),
        "cert import": Good("{account} reply.zip"),
        "cert inspect": Good("reply.zip", vault=False),
        "rotation status": Good("{account}"),
        "rotation canary": Good("{account} --generation {number}"),
        "rotation promote": Good("{account} --generation {number}", state="candidate"),
        "rotation rollback": Good("{account} --generation {number}", state="rotated"),
        "rotation reject": Good("{account} --generation {number} --reason wrong --yes", state="candidate"),
        "rotation retire": Good("{account} --generation {number}", state="rotated"),
        "bundle get": Good("{account}/{application} --consumer-token-file reader.token --to bundle"),
        "evidence show": Good("{account}"),
        "evidence verify": Good("{account}"),
        "evidence anchor": Good(""),
        "evidence export": Good("all.jsonl"),
        "partner list": Good("", vault=False),
        "partner show": Good("stellantis", vault=False),
        "partner add": Good("own.toml"),
        "vault start": Good("", vault=False),
        "vault stop": Good("", vault=False),
        "vault status": Good(""),
        "vault env": Good("", vault=False),
        "vault setup": Good("--print hcl", vault=False),
        "vault enrol": Good("reader --right {account}/{application} --token-file made.token"),
        "config show": Good("", vault=False),
        "config check": Good("", vault=False),
    }
)


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
        code = run(arguments, wiring)
    return Ended(code, *(raw.getvalue().decode() for raw in written))
