"""`broker bundle`: credentials for an application, for a limited time."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

from broker.agent.holding import Held
from broker.cli.noun import Noun
from broker.cli.options import application_argument
from broker.cli.output import note, wrote_json
from broker.cli.start import Start
from broker.cli.through import service, token
from broker.delivery.directory import CURRENT, publishing
from broker.delivery.formats import DEFAULT, FileFormat
from broker.delivery.root import default_root, is_memory
from broker.errors import BrokerError, DeniedError, InputError, RefusedError
from broker.model.bundle import Granted, Source, Wanted
from broker.model.duration import duration_text, parse_duration
from broker.model.lease import LONGEST, Caller
from broker.model.names import AccountName
from broker.signals import held_back

_EXTRAS = ("keystore.p12", "truststore.p12", "curl.conf", "env")


_KEYTOOL = (
    "keytool -importkeystore -srckeystore DIR/current/keystore.p12 -destkeystore keystore.jks -deststoretype JKS "
    "-srcstorepass:file DIR/current/keystore.password -deststorepass:file DIR/current/keystore.password"
)
_EXAMPLE = "broker bundle get acme/reporting --consumer-token-file token --to /run/acme --hold"


class _Format(click.Choice[str]):
    """An extra file. JKS, which only old Java programs need, is converted with keytool."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the file's name; raise `InputError` for a JKS."""
        if value == "keystore.jks":
            raise InputError(
                "JKS key stores are not written; Java 8 and later read keystore.p12",
                hint=f"for an older program, convert it: {_KEYTOOL}",
            )
        return super().convert(value, param, ctx)


class _WithFormats(click.Command):
    """A command with the files of a bundle in its help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the files."""
        super().format_options(ctx, formatter)
        for title, files in (("Files", DEFAULT), ("Extra files", map(FileFormat, _EXTRAS))):
            with formatter.section(title):
                formatter.write_dl([(file.value, file.meaning) for file in files])


@click.group("bundle", cls=Noun, epilog=f"Example: {_EXAMPLE}")
def command() -> None:
    """Fetch credentials for an application, for a limited time."""


@command.verb("get", cls=_WithFormats, example=_EXAMPLE)
@application_argument
@click.option("--consumer-token-file", default="", metavar="PATH|-", help="Vault token of the consumer.")
@click.option("--to", "directory", default="", metavar="DIR", help="Directory for the files.  [default: in memory]")
@click.option("--ttl", default="", metavar="DURATION", help="Lifetime, such as 15m; one hour at most.")
@click.option(
    "--format", "formats", multiple=True, metavar="FILE", type=_Format(_EXTRAS), help="Extra file (repeatable)."
)
@click.option("--hold", is_flag=True, help="Keep running, follow rotations; remove the files at the end.")
@click.option("--allow-expired", is_flag=True, help="Issue it even if the certificate has expired.")
def get(
    start: Start,
    application: tuple[AccountName, str],
    consumer_token_file: str,
    directory: str,
    ttl: str,
    formats: Sequence[str],
    hold: bool,
    allow_expired: bool,
) -> None:
    """Write the account's current generation to a directory: key, certificate, CAs, login, password, client_id.

    A direct bundle holds the partner's own credentials: a copy of it works until the certificate expires. Without
    --hold, the files stay when the lease ends. Prints DIR/current, a link: resolve it once, then read the files.

    With BROKER_ADDR set, it comes from that service, and BROKER_AUTH may name the identity in place of the token file.
    Then --hold renews the lease until a signal, or until lease, right or account are taken away.
    """
    account, name = application
    root = _root(start, account, name, directory)
    length = parse_duration(ttl or start.config["bundle.ttl"])
    source = bundle_source(start, consumer_token_file)
    publish = partial(publishing, root, formats=[FileFormat(f) for f in formats], clock=start.clock)
    # Signals still end this: Vault may be slow, and there is no file yet
    held = Held(source, Wanted(account, name, length, allow_expired=allow_expired), publish, start.clock, note)
    with held_back() if hold else nullcontext() as signals, closing(held):
        held.publish()
        if signals is None:
            _say(held, length, "the files are not removed then (use --hold)")
            return
        _follow(held, signals, length, "renewed, until a signal" if source.renews else "then the files are removed")


def _follow(held: Held, signals: frozenset[int], asked: timedelta, afterwards: str) -> None:
    """Hold the files until a signal, or the end of lease or right. Then remove them."""
    over: BrokerError | None = None
    try:
        _say(held, asked, afterwards)
        stopped = held.follow(signals)
    except (DeniedError, RefusedError) as error:
        over = error
    finally:  # clean up before any output, which may fail
        staying = held.withdraw()  # if it raises, the files that are left stay recorded
        with suppress(*((BrokerError,) if over else ())):
            held.give_back()
    if not over:
        note("stopped" if stopped else "the lease has ended")
    for path in staying:
        note(f"{path} is kept: other files are in it")
    note("the files of this lease are gone")
    if over:
        raise over


def _say(held: Held, asked: timedelta, afterwards: str) -> None:
    granted, current = held.granted, held.path.with_name(CURRENT)
    bundle, lease = granted.bundle, granted.lease
    if not wrote_json(_credential(granted, held.path, current)):
        click.echo(current)
        note(f"generation {bundle.generation} of {bundle.account}/{bundle.application} in {current}")
        note(f"until {lease.expires:%F %TZ}; {afterwards}")
    if asked > LONGEST or lease.first_issued + asked - lease.expires > asked / 60:  # ends are rounded down
        note(f"requested: {duration_text(asked)}; a lease lasts an hour at most, and no longer than the certificate")


def bundle_source(start: Start, token_file: str, say: Callable[[str], None] = note) -> Source:
    """Return the service if one is configured, else the use-case with this host's login."""
    if not start.config["service.address"] and not token_file:
        raise InputError(
            "no identity of a consumer is given",
            hint="--consumer-token-file PATH; or BROKER_ADDR and BROKER_AUTH for a broker service",
        )
    return service(start, token_file, say) or start.broker.issuing.issuer(Caller(token(token_file)))


def _root(start: Start, account: AccountName, application: str, directory: str) -> Path:
    configured = start.config["bundle.directory"]
    if directory:
        root = Path(directory).absolute()
    elif configured:
        root = Path(configured).absolute() / account / application
    else:
        root = default_root(account, application, os.environ, os.getuid())
    if not is_memory(root):
        note(f"warning: {root} is on a disk, where removed files can be recovered; use a directory in /dev/shm")
    return root


def _credential(granted: Granted, published: Path, current: Path) -> dict[str, Any]:
    bundle = granted.bundle
    return {
        "version": 1,
        "success": True,
        "account": bundle.account,
        "application": bundle.application,
        "generation": bundle.generation,
        "expiration": granted.lease.expires,
        "not_after": bundle.not_after,
        "base_url": bundle.base_url,
        "client_id": bundle.client_id,
        "directory": str(current),
        "files": {path.name: str(path) for path in sorted(published.iterdir())},
    }
