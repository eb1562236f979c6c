"""Bundles: credentials for an application, for a while."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.options import application_argument, read_private
from broker.cli.output import note, output_option, show_json
from broker.errors import InputError
from broker.model.names import AccountName

if TYPE_CHECKING:
    from datetime import timedelta

    from broker.cli.start import Start
    from broker.issuing.grant import Granted
    from broker.model.secret import Secret

__all__ = ["command"]

_EXTRAS = ("keystore.p12", "truststore.p12", "curl.conf", "env")


_KEYTOOL = (
    "keytool -importkeystore -srckeystore DIR/current/keystore.p12 -destkeystore keystore.jks -deststoretype JKS "
    "-srcstorepass:file DIR/current/keystore.password -deststorepass:file DIR/current/keystore.password"
)


class _Format(click.Choice[str]):
    """A further file; the key store that only old Java programs want is made by keytool."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the file's name; raise `InputError` for a JKS."""
        if value == "keystore.jks":
            raise InputError(
                "JKS key stores are not written; Java 8 and later read keystore.p12",
                hint=f"for an older program convert it: {_KEYTOOL}",
            )
        return super().convert(value, param, ctx)


class _WithFormats(click.Command):
    """Its help says what each file of a bundle is."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and after them the files."""
        from broker.delivery.formats import DEFAULT, FileFormat

        super().format_options(ctx, formatter)
        for title, files in (("Files", DEFAULT), ("Further files", map(FileFormat, _EXTRAS))):
            with formatter.section(title):
                formatter.write_dl([(file.value, file.meaning) for file in files])


@click.group(
    "bundle", epilog="Example: broker bundle get acme/reporting --consumer-token-file token --to /run/acme --hold"
)
def command() -> None:
    """Fetch credentials for an application, to hold them for a while."""


@command.command(
    "get",
    cls=_WithFormats,
    epilog="Example: broker bundle get acme/reporting --consumer-token-file token --to /run/acme --hold",
)
@application_argument
@click.option("--consumer-token-file", required=True, metavar="PATH|-", help="Who asks: a token of Vault's.")
@click.option("--to", "directory", default="", metavar="DIR", help="Where the files go.  [default: in memory]")
@click.option("--ttl", default="", metavar="DURATION", help="How long it lasts, such as 15m; an hour at most.")
@click.option(
    "--format", "formats", multiple=True, metavar="FILE", type=_Format(_EXTRAS), help="Further files; repeat."
)
@click.option("--hold", is_flag=True, help="Stay, and remove the files when the lease ends, or this is stopped.")
@click.option("--allow-expired", is_flag=True, help="Even if the certificate has expired.")
@output_option
@click.pass_obj
def get(
    start: Start,
    application: tuple[AccountName, str],
    consumer_token_file: str,
    directory: str,
    ttl: str,
    formats: Sequence[str],
    hold: bool,
    allow_expired: bool,
    output: str,
) -> None:
    """Publish the account's current set to a directory: key, certificate, CA, login, password, client_id.

    This is a direct bundle: the partner's own set. Whoever copies it can use it until the partner's certificate
    dies. Without --hold nothing removes the files when the lease ends. Prints DIR/current: resolve it once, then read.
    """
    from broker.delivery.directory import publishing
    from broker.delivery.formats import FileFormat
    from broker.delivery.root import LeftBehindError
    from broker.issuing.grant import Wanted
    from broker.model.duration import parse_duration
    from broker.signals import held_back, wait_for_end

    account, name = application
    root = _root(start, account, name, directory)
    length = parse_duration(ttl or start.config["bundle.ttl"])
    issuer = start.broker.issuer(_token(consumer_token_file))
    wanted = Wanted(account, name, length, allow_expired=allow_expired)
    granted = issuer.grant(wanted)  # heard meanwhile: Vault may be away for long, and no file is there yet
    with held_back() if hold else nullcontext() as signals, ExitStack() as kept:
        try:
            files = [FileFormat(f) for f in formats]
            published = kept.enter_context(publishing(root, granted.bundle, files, clock=start.broker.clock))
        except LeftBehindError:
            raise  # what lies there stays on record
        except BaseException:
            issuer.give_back(granted)
            raise
        if signals is None:
            _say(granted, published.path, length, output, "nothing removes the files then (--hold does)")
            return
        try:
            _say(granted, published.path, length, output, "then the files are removed")
            stopped = wait_for_end(signals, granted.lease.expires, start.broker.clock)
        finally:  # nobody may be there to be told: nothing is said before all is done
            staying = published.withdraw()  # where it raises, what lies there stays on record
            issuer.give_back(granted)
        note("stopped" if stopped else "the lease has ended")
        for path in staying:
            note(f"{path} stays: what is in it is another's")
        note("the files of this lease are gone")


def _say(granted: Granted, published: Path, asked: timedelta, output: str, afterwards: str) -> None:
    from broker.delivery.directory import CURRENT
    from broker.model.duration import duration_text

    bundle, lease, current = granted.bundle, granted.lease, published.with_name(CURRENT)
    if output == "json":
        show_json(_credential(granted, published, current))
    else:
        click.echo(current)
        note(f"generation {bundle.generation} of {bundle.account}/{bundle.application} in {current}")
        note(f"until {lease.expires:%F %TZ}; {afterwards}")
    if lease.expires < lease.first_issued + asked:
        note(f"{duration_text(asked)} was asked for: a lease lasts an hour at most, and no longer than the certificate")


def _root(start: Start, account: AccountName, application: str, directory: str) -> Path:
    from broker.delivery.memory import default_root, is_memory

    configured = start.config["bundle.directory"]
    if directory:
        root = Path(directory).absolute()
    elif configured:
        root = Path(configured).absolute() / account / application
    else:
        root = default_root(account, application, os.environ, os.getuid())
    if not is_memory(root):
        note(f"warning: {root} is on a disk: what is removed there can be found again. /dev/shm is memory.")
    return root


def _token(file: str) -> Secret[str]:
    from broker.model.secret import Secret

    text = read_private(file).decode("utf-8", "replace").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise InputError(f"{file} holds no token", hint="log in at Vault, and put the token into the file, 0600")
    return Secret(text)


def _credential(granted: Granted, published: Path, current: Path) -> dict[str, Any]:
    bundle = granted.bundle
    return {
        "version": 1,
        "success": True,
        "account": bundle.account,
        "application": bundle.application,
        "generation": bundle.generation,
        "expiration": granted.lease.expires,
        "not_after": bundle.certificate.not_after,
        "base_url": bundle.base_url,
        "client_id": bundle.client_id,
        "directory": str(current),
        "files": {path.name: str(path) for path in sorted(published.iterdir())},
    }
