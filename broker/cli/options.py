"""Shared arguments and options, and the conversion of their values."""

from __future__ import annotations

import os
import shlex
import sys
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from broker.cli.completion import account_names, application_names
from broker.cli.output import wants_json
from broker.errors import InputError, unwritable
from broker.model.fingerprint import parse_fingerprint
from broker.model.names import AccountName, account_name, checked_name
from broker.model.secret import Secret
from broker.paths import open_file, place, write_atomically
from broker.telemetry import log

if TYPE_CHECKING:
    from broker.model.account import Account
    from broker.model.generation import SigningRequest, Submission

_LONGEST_SECRET: Final = 1024  # characters
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
F = TypeVar("F", bound=Callable[..., Any])
_LARGEST: Final = 4 * 1024 * 1024  # bytes; no file that is handed to us is larger


def _account(ctx: click.Context, _: click.Parameter, value: str) -> AccountName | None:
    if ctx.resilient_parsing:
        return None
    account = account_name(value)
    log.bind(account=account)
    return account


def _accounts(ctx: click.Context, _: click.Parameter, value: tuple[str, ...]) -> tuple[AccountName, ...]:
    if value and ctx.params.get("everything"):
        raise InputError("--all cannot be combined with names of accounts", hint="use one of them")
    return tuple(map(account_name, value))


def _application(ctx: click.Context, _: click.Parameter, value: str) -> tuple[AccountName, str] | None:
    if ctx.resilient_parsing:
        return None
    account, application = split_application(value)
    log.bind(account=account, application=application)
    return account, application


account_argument = click.argument("account", callback=_account, shell_complete=account_names)
application_argument = click.argument(  # a pair
    "application", metavar="ACCOUNT/APPLICATION", callback=_application, shell_complete=application_names
)

accept_ca_option = click.option(  # SHA-256 fingerprints in lower-case hex
    "--accept-ca",
    multiple=True,
    metavar="SHA256",
    callback=lambda _, __, values: tuple(map(parse_fingerprint, values)),
    help="Accept the CA with this fingerprint (repeatable).",
)

profile_option = click.option("--profile", default="stellantis", show_default=True, help="Profile of the partner.")

yes_option = click.option("--yes", is_flag=True, help="Skip the question before something is lost.")


def accounts_argument(function: F) -> F:
    """[ACCOUNT]… or --all, as the parameters `accounts` and `everything`."""
    function = click.option("--all", "everything", is_flag=True, is_eager=True, help="Every account.")(function)
    return click.argument(
        "accounts", nargs=-1, metavar="[ACCOUNT]...", callback=_accounts, shell_complete=account_names
    )(function)


def generation_option(otherwise: str) -> Callable[[F], F]:
    """--generation, as the parameter `generation`; 0 if it is not given, which stands for `otherwise`."""
    return click.option(
        "--generation",
        type=click.IntRange(1),
        callback=lambda _, __, value: value or 0,
        help=f"Number of the generation.  [default: {otherwise}]",
    )


def output_file_option(name: str, what: str, *, default: str = "", secret: bool = False) -> Callable[[F], F]:
    """Option for a file to write, `-` for standard output, which is checked before anything is done."""
    check = writable_secret if secret else writable
    return click.option(name, default=default, metavar="PATH|-", callback=check, help=what)


def reason_options(function: F) -> F:
    """--force and --reason, as the parameters `force` and `reason`: `the_reason` reads them."""
    function = click.option("--reason", default="", metavar="TEXT", help="Reason, for the evidence.")(function)
    return click.option("--force", is_flag=True, help="Override the refusal (requires --reason).")(function)


def _reason(_: click.Context, __: click.Parameter, text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise InputError("--reason is empty or holds a control character", hint="write it on one line")
    return text.strip()


reason_option = click.option(
    "--reason", required=True, metavar="TEXT", callback=_reason, help="Reason, for the evidence."
)
optional_reason_option = click.option(
    "--reason",
    metavar="TEXT",
    callback=lambda ctx, option, text: "" if text is None else _reason(ctx, option, text),
    help="Reason, for the evidence; required from operators.",
)


def the_reason(force: bool, reason: str, option: str = "--force") -> str:
    """Return the reason for an option, "" without it; raise `InputError` for one without the other."""
    if force and not reason.strip():
        raise InputError(f"{option} requires --reason", hint="--reason TEXT; it is stored in the evidence")
    why = one_line(reason, "--reason")
    if reason and not force:
        raise InputError(f"--reason requires {option}", hint=f"add {option}, or leave --reason out")
    return why


def one_line(text: str, option: str) -> str:
    """Return the text of `option` without blanks around it; raise `InputError` for a control character."""
    if not text.isprintable():
        raise InputError(f"{option} holds a control character", hint="write it on one line")
    return text.strip()


def typed_command() -> str:
    """Return the running command as a person types it again, so that a hint can add to it."""
    context = click.get_current_context()
    words = context.command_path.split()
    for parameter in context.command.get_params(context):
        value = context.params.get(parameter.name or "")
        values = value if isinstance(value, tuple) else () if value in (None, "", False) else (value,)
        for each in values if parameter.expose_value and value != parameter.get_default(context) else ():
            option = parameter.opts[-1:] if isinstance(parameter, click.Option) else []
            words += option if each is True else [*option, str(each)]
    return shlex.join(words)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is lost, unless `yes`; raise `InputError` for "no", and without a terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(f"{question} stdin is not a terminal", hint="pass --yes to confirm")
    if not click.confirm(question, err=True):
        raise InputError("nothing was changed: the answer was no")


def require_consent(account: Account, request: SigningRequest, *, yes: bool) -> None:
    """Ask before the partner's answer to `request` becomes useless; raise `InputError` unless the answer is yes.

    Also for a request that is not recorded as sent: `csr new` printed its CSR, so it may have been sent by hand.
    """
    sent = "; ".join(map(_sent, request.submissions)) or "not recorded as sent"
    lost = "the partner's answer to it becomes useless"
    key = "its key is destroyed, and " if request.closed is None else ""
    confirm(f"signing request {request.number} of {account.name} ({sent}): {key}{lost}. Continue?", yes=yes)


def _sent(submission: Submission) -> str:
    reference = f", reference {submission.reference}" if submission.reference else ""
    return f"sent {submission.at:%F %TZ} to {submission.to or 'no recorded address'}{reference}"


def split_application(text: str) -> tuple[AccountName, str]:
    """Return the account and the application of `ACCOUNT/APPLICATION`."""
    account, slash, application = text.partition("/")
    if not slash:
        raise InputError(f"{text[:80]!r} names no application", hint="write ACCOUNT/APPLICATION")
    return account_name(account), checked_name(application, "application")


def moment(text: str) -> datetime:
    """Return the time in `text`: ISO 8601, in UTC if it has no zone."""
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # OverflowError: in UTC it would be before year 1, or after 9999
        raise InputError(
            f"{text[:40]!r} is not a time", hint="write it as 2026-03-01 or 2026-03-01T09:30, in UTC"
        ) from None


def read_input(name: str, *, largest: int = _LARGEST) -> bytes:
    """Return the content of file `name`, `-` for standard input; raise `InputError`. `largest` is in bytes.

    A link of another user is not followed.
    """
    try:
        if name == "-":
            data = sys.stdin.buffer.read(largest + 1)
        else:
            with os.fdopen(open_file(Path(name), os.O_RDONLY), "rb") as file:
                data = file.read(largest + 1)
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    if len(data) > largest:
        raise InputError(f"{name} has more than {largest} bytes", hint="is this the right file?")
    return data


def read_inputs(names: Sequence[str], *, largest: int) -> dict[str, bytes]:
    """Return the content of each file by its name, and of the files in each directory; raise `InputError`.

    `largest` is in bytes, for all together. A directory in a directory is not read.
    """
    found, left = dict[str, bytes](), largest
    for name in names:
        inside = files_in(Path(name)) if os.path.isdir(name) else [name]  # noqa: PTH112 - no error for a bad name
        if not inside:
            raise InputError(f"the directory {name} holds no file", hint="name files, or another directory")
        for file in inside:
            data = read_input(file, largest=left)
            left -= len(data)
            found["standard input" if file == "-" else file] = data
    return found


def files_in(directory: Path) -> list[str]:
    """Return the paths of the files in a directory, sorted, without hidden ones; raise `InputError`."""
    try:
        return sorted(str(path) for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read {directory}: {error.strerror}") from None


def read_password(file: str) -> Secret[str]:
    """Return a password from `file`, `-` for standard input, or from a hidden prompt, without a final line end.

    Raise `InputError` if it is empty, too long, not UTF-8 or has invisible characters, or without file and terminal.
    """
    if file:
        try:
            text = read_input(file).decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise InputError(f"{file} is not UTF-8 text") from None
    elif sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        hint = "--password-file PATH, or - for standard input"
        raise InputError("no password is given, and stdin is not a terminal", hint=hint)
    if not text:
        raise InputError("the password is empty")
    if len(text) > _LONGEST_SECRET:
        raise InputError(f"the password has {len(text)} characters", hint=f"the limit is {_LONGEST_SECRET}")
    if text.startswith("\ufeff"):
        raise InputError("the password begins with a byte order mark", hint="save the file as UTF-8 without BOM")
    if any(unicodedata.category(c) in _UNSEEN for c in text):
        message = "the password has a line end, a control character or an invisible character"
        raise InputError(message, hint="use a single line")
    return Secret(text)


def require_one_reader(*names: str) -> None:
    """Raise `InputError` if two of `names` are standard input, which can be read once only."""
    if names.count("-") > 1:
        raise InputError("standard input is named twice, but can be read once only", hint="name a file for one of them")


def require_free_output(name: str, what: str) -> None:
    """Raise `InputError` if `what` is to be written to standard output, and JSON too."""
    if name == "-" and wants_json():
        raise InputError(f"standard output takes either {what} or JSON", hint=f"write {what} to a file")


def require_apart(*names: str) -> None:
    """Raise `InputError` if two of `names` are the same output file."""
    seen = set()
    for name in filter(None, names):
        place = name if name == "-" else os.path.realpath(name)
        if place in seen:
            raise InputError(f"{name} is named for two different outputs", hint="name another file")
        seen.add(place)


def writable(_: click.Context, __: click.Parameter, value: str) -> str:
    """Refuse a file that `write_output` cannot write, before anything is done. For `callback=`."""
    path = Path(value)
    if value in ("", "-"):
        return value
    if path.is_dir():
        raise InputError(f"cannot write {value}: it is a directory", hint="name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {value}: {path.parent} is no directory", hint=f"mkdir -p {path.parent}")
    if not os.access(path if path.exists() and not path.is_file() else path.parent, os.W_OK):
        raise InputError(f"cannot write {value}: permission denied", hint="check the owner and mode of the directory")
    _require_trusted(value, follow=True)
    return value


def writable_secret(ctx: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse a file that `write_output` cannot write a secret to, before anything is done. For `callback=`."""
    if writable(ctx, option, value) not in ("", "-"):
        _require_plain(Path(value))
        _require_trusted(value, guarded=True)
    return value


def write_output(name: str, content: bytes, mode: int = 0o644) -> None:
    """Write `content` to file `name` atomically, or to standard output for `-`; raise `InputError`.

    The target of a link is replaced, unless the link is another user's; devices and pipes are written to. A secret
    (`mode` without access for others) is written to a plain file only, and only below directories we control.
    """
    if name == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    path = Path(name)
    try:
        if not mode & 0o077:
            _require_plain(path)
            write_atomically(path, content, mode, guarded=True)
        elif path.exists() and not path.is_file():
            with os.fdopen(open_file(path, os.O_WRONLY | os.O_TRUNC), "wb") as device:
                device.write(content)
        else:
            write_atomically(path, content, mode, follow=True)
    except OSError as error:
        raise unwritable(name, error) from None
    except ValueError:  # a path with a NUL
        raise InputError(f"cannot write {name}: it is not a valid file name") from None


def _require_trusted(value: str, *, follow: bool = False, guarded: bool = False) -> None:
    try:
        with place(Path(value), follow=follow, guarded=guarded):
            return
    except OSError as error:
        raise unwritable(value, error) from None


def _require_plain(path: Path) -> None:
    """Refuse links, pipes and devices: in a directory such as /tmp they may be another user's."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"cannot write {path}: it is not a plain file", hint="name a file, or - for standard output")
