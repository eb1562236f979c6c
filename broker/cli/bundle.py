"""`broker bundle`: credentials for an application, for a limited time."""

import os
import shlex
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import click

from broker.agent.files import Files
from broker.agent.holding import Held
from broker.agent.leases import Keeper
from broker.cli.bundle_options import Asked, asked_options, ttl_option
from broker.cli.credential import EXEC_CREDENTIAL, EXEC_INFO, exec_api, show_credential, show_exec_credential
from broker.cli.noun import Noun
from broker.cli.output import note, take_format, wants, wants_json
from broker.cli.start import Start
from broker.delivery.directory import CURRENT
from broker.delivery.formats import DEFAULT, FileFormat
from broker.delivery.restoring import published
from broker.delivery.reuse import is_fresh, shared
from broker.delivery.root import default_root, is_memory
from broker.errors import BrokerError, ConflictError, DeniedError, InputError, RefusedError
from broker.model.bundle import Wanted
from broker.model.duration import duration_text
from broker.model.lease import LONGEST
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
@asked_options
@click.option("--to", "directory", default="", metavar="DIR", help="Directory for the files.  [default: in memory]")
@ttl_option
@click.option(
    "--format", "formats", multiple=True, metavar="FILE", type=_Format(_EXTRAS), help="Extra file (repeatable)."
)
@click.option("--hold", is_flag=True, help="Keep running, follow rotations; remove the files at the end.")
@click.option("--allow-expired", is_flag=True, help="Issue it even if the certificate has expired.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", EXEC_CREDENTIAL]),
    default="table",
    show_default=True,
    expose_value=False,
    callback=take_format,
    help="Format of the output; exec-credential is for kubectl.",
)
def get(start: Start, asked: Asked, directory: str, formats: Sequence[str], hold: bool) -> None:
    """Write the account's current generation to a directory: key, certificate, CAs, login, password, client_id.

    A direct bundle holds the partner's own credentials: a copy of it works until the certificate expires. Without
    --hold, the files stay when the lease ends. Prints DIR/current, a link: resolve it once, then read the files.

    With BROKER_ADDR set, it comes from that service, and BROKER_AUTH may name the identity in place of the token file.
    Then --hold renews the lease until a signal, or until lease, right or account are taken away. Without it, the lease
    is kept in the directory: lease renew and lease revoke take that.

    With -o json or exec-credential it is a credential process: it asks nobody, and processes with the same options
    share a bundle while half of its lease is left.
    """
    api = exec_api(os.environ.get(EXEC_INFO, "")) if wants(EXEC_CREDENTIAL) else ""
    if hold and api:
        raise InputError("a credential process does not stay", hint="leave out --hold, or use -o json")
    wanted, extra = asked.wanted(start), [FileFormat(f) for f in formats]
    root = _root(start, wanted, directory)
    # Signals still end this: Vault may be slow, and there is no file yet
    fetch = partial(_fetched, start, asked, Files(root, extra, start.clock))
    publish = partial(_published, root=root, keeper=Keeper(root, start.clock))
    if hold:
        _hold(fetch(), root)
    elif not api and not wants_json():
        publish(fetch())
    else:
        found = shared(
            root,
            asked.origin(start),
            lambda manifest: is_fresh(manifest, wanted, extra, start.clock()),
            lambda: publish(fetch()),
        )
        show_exec_credential(found, api) if api else show_credential(found)


def _fetched(start: Start, asked: Asked, files: Files) -> Held:
    made = Held(asked.source(start), asked.wanted(start), files, start.clock)
    made.say = note
    return made


def _published(held: Held, root: Path, keeper: Keeper) -> None:
    """Write the files, which stay, as does a lease that can be renewed."""
    removing = "use --hold"
    if held.renews:
        held.keep = keeper.save
        removing += f", or broker lease revoke {shlex.quote(str(root))}"
    with closing(held):
        held.publish()
        if held.renews and not keeper.keeps():
            held.withdraw()
            raise ConflictError(f"another process revoked the lease in {root}", hint="run the command again")
        _say(held, f"the files are not removed then ({removing})")


def _hold(held: Held, root: Path) -> None:
    """Write the files, and hold them."""
    with held_back() as signals, closing(held):
        held.publish()
        _follow(held, root, signals)


def _follow(held: Held, root: Path, signals: frozenset[int]) -> None:
    """Hold the files until a signal, or the end of lease or right. Then remove them."""
    over: BrokerError | None = None
    try:
        if wants_json() and (found := published(root)):
            show_credential(found)
        _say(held, "renewed, until a signal" if held.renews else "then the files are removed")
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


def _say(held: Held, afterwards: str) -> None:
    bundle, lease, asked = held.granted.bundle, held.granted.lease, held.wanted.ttl
    if not (wants_json() or wants(EXEC_CREDENTIAL)):
        current = held.path.with_name(CURRENT)
        click.echo(current)
        note(f"generation {bundle.generation} of {bundle.account}/{bundle.application} in {current}")
        note(f"until {lease.expires:%F %TZ}; {afterwards}")
    if asked > LONGEST or lease.first_issued + asked - lease.expires > asked / 60:  # ends are rounded down
        note(f"requested: {duration_text(asked)}; a lease lasts an hour at most, and no longer than the certificate")


def _root(start: Start, wanted: Wanted, directory: str) -> Path:
    account, application, configured = wanted.account, wanted.application, start.config["bundle.directory"]
    if directory:
        root = Path(directory).absolute()
    elif configured:
        root = Path(configured).absolute() / account / application
    else:
        root = default_root(account, application, os.environ, os.getuid())
    if not is_memory(root):
        note(f"warning: {root} is on a disk, where removed files can be recovered; use a directory in /dev/shm")
    return root
