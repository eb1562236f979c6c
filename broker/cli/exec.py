"""`broker exec`: run a program beside a bundle."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from broker.agent.files import Files
from broker.agent.holding import Held
from broker.agent.supervising import NotStartedError, Program, replaced_by, supervised
from broker.cli.bundle_options import Asked, asked_options, ttl_option
from broker.cli.start import Start
from broker.copies import replace
from broker.delivery.directory import CURRENT, cleared
from broker.delivery.formats import DEFAULT, FileFormat, render
from broker.delivery.root import LeftBehindError, default_root, held
from broker.errors import BrokerError, InputError
from broker.memfd import path_of, sealed
from broker.model.bundle import Bundle, Source, Wanted
from broker.telemetry import log

_NAMES: Final[Mapping[str, str]] = {  # the variable of each file
    FileFormat.KEY.value: "PARTNER_KEY",
    FileFormat.CERTIFICATE.value: "PARTNER_CERT",
    FileFormat.TRUST.value: "PARTNER_CA",
    FileFormat.COMBINED.value: "PARTNER_COMBINED",
    FileFormat.USERNAME.value: "PARTNER_USERNAME_FILE",
    FileFormat.PASSWORD.value: "PARTNER_PASSWORD_FILE",
    FileFormat.CLIENT_ID.value: "PARTNER_CLIENT_ID_FILE",
    FileFormat.SECRETS.value: "PARTNER_SECRETS_FILE",
}
_EXEC: Final = "exec-"  # before a random number: containers that share /dev/shm each have a process 1
_LOCK: Final = "exec.lock"  # in a directory that is in use
_OURS: Final = ("VAULT_TOKEN", "BAO_TOKEN")


class _OnRotation(click.ParamType[int]):
    name = "restart|SIGNAL"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of the signal, SIGTERM for a restart."""
        if value == "restart":
            return signal.SIGTERM
        try:
            return int(signal.Signals[f"SIG{value.upper().removeprefix('SIG')}"])
        except KeyError:
            self.fail(f"{value!r} is neither restart nor a signal such as HUP", param, ctx)


@click.command(
    "exec",
    epilog="Example: broker exec acme/reporting --on-rotation HUP -- ./fetch-fleets --all",
)
@asked_options
@click.option("--on-rotation", type=_OnRotation(), default=None, help="Restart the program, or send it a signal.")
@click.option("--memfd", is_flag=True, help="Become the program, with files in its memory that outlive no process.")
@ttl_option
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def command(start: Start, /, asked: Asked, on_rotation: int | None, memfd: bool, program: tuple[str, ...]) -> int:
    """Run a program with a bundle: variables name its files, and no variable or argument holds a secret.

    PARTNER_BASE_URL, PARTNER_CERT, PARTNER_KEY, PARTNER_CA, PARTNER_COMBINED, PARTNER_USERNAME_FILE,
    PARTNER_PASSWORD_FILE and PARTNER_CLIENT_ID_FILE are set; PARTNER_DIRECTORY is a link to the newest generation.
    The files are in memory, follow rotations, and are gone when the program has ended. Signals are passed on to it.

    With --memfd there is no process of the broker beside it: the lease ends by itself, and a rotation is not
    followed. A program that starts another one must let it inherit descriptors.

    Exits with the code of the program, 128 plus the signal that ended it, 127 if there is no such program, 126 if
    it cannot be run, 125 if the broker failed.
    """
    try:
        wanted, source = asked.wanted(start), asked.source(start, log.info)
        run = Program(program, _scrubbed(os.environ, start.config["service.auth"]), on_rotation or 0)
        if not memfd:
            return _beside(run, source, wanted, start)
        if on_rotation:
            raise InputError("--memfd follows no rotation", hint="leave out --on-rotation, or --memfd")
        replaced_by(_with(run, _in_memory(source.grant(wanted).bundle)))
    except NotStartedError as error:
        click.echo(f"error: {error}", err=True)
        return error.code


def _beside(program: Program, source: Source, wanted: Wanted, start: Start) -> int:
    """Run `program` beside files of its own, and remove them when it has ended."""
    place = default_root(wanted.account, wanted.application, os.environ, os.getuid())
    with _own(place) as root, closing(Held(source, wanted, Files(root, (), start.clock), start.clock)) as files:
        files.publish()
        try:
            return supervised(files, _with(program, _published(files.granted.bundle, files.path)))
        finally:
            try:
                files.withdraw()
            except LeftBehindError as error:  # the code of the program is kept
                click.echo(f"error: {error.message}", err=True)
            with suppress(BrokerError):
                files.give_back()


@contextmanager
def _own(place: Path) -> Iterator[Path]:
    """Lend a directory below `place` that is locked as long as it is used. Remove those of runs that were killed."""
    root = place / f"{_EXEC}{os.urandom(8).hex()}"
    with held(place) as directory:
        for name in directory.names():
            if name.startswith(_EXEC):
                with suppress(BrokerError, OSError):
                    _tidied(place / name)
        with held(root) as made:
            claim = made.claim(_LOCK)
    try:
        yield root
    finally:
        with suppress(OSError):
            (root / _LOCK).unlink()
            root.rmdir()
        if claim is not None:
            os.close(claim)


def _tidied(root: Path) -> None:
    with held(root) as directory:
        claim = directory.claim(_LOCK)
        if claim is None:
            return
        try:
            cleared(directory)
            directory.unlink(_LOCK)
        finally:
            os.close(claim)
    root.rmdir()


def _with(program: Program, variables: Mapping[str, str]) -> Program:
    return replace(program, environment={**program.environment, **variables})


def _published(bundle: Bundle, directory: Path) -> dict[str, str]:
    files = {variable: str(directory / name) for name, variable in _NAMES.items() if (directory / name).exists()}
    return {**files, "PARTNER_BASE_URL": bundle.base_url, "PARTNER_DIRECTORY": str(directory.with_name(CURRENT))}


def _in_memory(bundle: Bundle) -> dict[str, str]:
    """Return the variables for files in memory that a program inherits."""
    files = render(bundle, DEFAULT, Path("/proc/self/fd"))
    paths = {_NAMES[file.value]: path_of(sealed(content.reveal(), inherited=True)) for file, content in files.items()}
    return {**paths, "PARTNER_BASE_URL": bundle.base_url}


def _scrubbed(environment: Mapping[str, str], auth: str) -> dict[str, str]:
    """Return `environment` without the tokens that this process logs in with."""
    method, _, variable = auth.partition(":")
    ours = {*_OURS, *([variable] if method == "jwt-env" else [])}
    return {name: value for name, value in environment.items() if name not in ours}
