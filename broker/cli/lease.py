"""`broker lease`: the leases that consumers hold, their renewal and revocation, and the keys that sign them."""

import os
import re
from collections.abc import Sequence
from typing import Final

import click

from broker.cli.bundle_options import ttl_option
from broker.cli.noun import Noun
from broker.cli.options import generation_option, optional_reason_option
from broker.cli.output import note, show_details, show_done, show_table, when, wrote_json
from broker.cli.own_lease import kept_in, renew_own, revoke_own, show_own
from broker.cli.own_leases import SHARED, SHOWN, list_own, operators, revoke_named, show_named
from broker.cli.start import Start
from broker.errors import InputError, UnknownNameError
from broker.model.holdings import Held, Which
from broker.model.lease import ID_LENGTH, RENEWABLE
from broker.model.names import AccountName, account_name

_ID: Final = re.compile(rf"[0-9a-f]{{8,{ID_LENGTH}}}")
_HELD: Final = "broker lease list shows what is held"


def _lease(ctx: click.Context, option: click.Parameter, value: str) -> str:
    if ctx.resilient_parsing or (not value and not option.required):
        return value
    if value.startswith("eyJ") and value.count(".") > 1:
        raise InputError("this is the text of a lease, which is a secret", hint="name its id: broker lease list")
    if not _is_id(value) and not os.access(value, os.F_OK):
        hint = "8 to 32 of 0-9 and a-f; broker lease list shows the ids"
        raise InputError(f"{value[:80]!r} is not the id of a lease, its beginning, or a directory", hint=hint)
    return value


def _is_id(lease: str) -> bool:
    return bool(_ID.fullmatch(lease))


def _rotate(_: click.Context, __: click.Parameter, value: str) -> str:
    if value != "rotate":
        message = f"{value[:40]!r} is not what can be done with the key of leases" if value else "rotate is missing"
        raise InputError(message, hint="give the word rotate: broker lease key --help")
    return value


def _account(_: click.Context, __: click.Parameter, value: str) -> str:
    return account_name(value) if value else ""


consumer_option = click.option("--consumer", default="", metavar="NAME", help="Only of this consumer, or entity id.")


@click.group("lease", cls=Noun, epilog="Example: broker lease list acme")
def command() -> None:
    """Show, renew and revoke the leases that consumers hold, and rotate the key that signs them.

    With BROKER_ADDR set, a consumer asks the service for its own leases; BROKER_AUTH names its identity. Without it, an
    operator asks Vault for those of all. A directory that bundle get --to wrote stands for the leases kept in it.
    """


@command.verb("list", example="broker lease list acme -o json")
@click.argument("account", default="", callback=_account)
@consumer_option
def list_(start: Start, account: AccountName, consumer: str) -> None:
    """List the leases that consumers hold, of one account or of all.

    Processes with the same identity share a line: it shows the newest of their leases, and lasts until the last of them
    ends. With BROKER_ADDR set, it lists yours.
    """
    if start.config["service.address"]:
        if consumer:
            raise InputError("a consumer lists its own leases only", hint=f"leave --consumer out; {operators(start)}")
        list_own(start, account)
        return
    if account:
        start.broker.account(account)  # or raises
    held = start.broker.holdings(lambda: start.now, Which(consumer=consumer, account=account))
    if wrote_json([_row(one) for one in held]):
        return
    show_table(
        ["lease", "consumer", "application", "gen", "until"],
        [
            (
                f"{h.lease[:SHOWN]}{'+' if h.shared else ''}" or h.kind,
                record.name,
                f"{h.account}/{h.application}",
                h.generation,
                f"{h.until:%H:%M:%SZ}" if h.until else None,
            )
            for record, h in held
        ],
        empty="no consumer holds a lease",
    )
    if any(h.shared for _, h in held):
        note(SHARED)


@command.verb("show", example="broker lease show 2f7c0a91d3b8")
@click.argument("lease", metavar="LEASE-ID|DIR", callback=_lease)
def show(start: Start, lease: str) -> None:
    """Show who holds a lease, of what, and until when.

    For a directory, it shows the lease of the files in it, and which generation is current. With BROKER_ADDR set, an id
    is that of a lease of yours.
    """
    if not _is_id(lease):
        show_own(start, kept_in(start, lease))
        return
    if start.config["service.address"]:
        show_named(start, lease)
        return
    held = start.broker.holdings(lambda: start.now, Which(lease=lease))
    if not held:
        raise _unknown(lease, _HELD)
    if wrote_json([_row(one) for one in held]):
        return
    for record, h in held:
        show_details(
            {
                "lease": h.lease,
                "consumer": record.name,
                "entity": record.entity,
                "application": f"{h.account}/{h.application}",
                "generation": h.generation,
                "kind": h.kind,
                "since": f"{h.since:%F %TZ}",
                "until": f"{h.until:%F %TZ}" if h.until else "it is returned",
                "renewable": "others share this holding"
                if h.shared
                else f"until {when(h.since + RENEWABLE, start.now)}",
            }
        )


@command.verb("renew", example="broker lease renew /run/acme --ttl 30m")
@click.argument("directory", metavar="DIR")
@ttl_option
def renew(start: Start, directory: str, ttl: str) -> None:
    """Renew the lease of the files that bundle get wrote to a directory.

    The files stay as they are, but for the end in manifest.json. If a newer generation is current, it says so: bundle
    get gets that. A lease can be renewed for a day, and no longer than the certificate is valid.
    """
    if _is_id(directory) and not os.access(directory, os.F_OK):
        message = "a lease is renewed by its text, which lies beside the files of its bundle, not by its id"
        raise InputError(message, hint="name the directory that bundle get wrote: broker lease renew DIR")
    renew_own(start, kept_in(start, directory), ttl)


@command.verb("revoke", example="broker lease revoke --account acme --consumer batch-7 --reason 'host is gone'")
@click.argument("lease", metavar="[LEASE-ID|DIR]", default="", callback=_lease)
@consumer_option
@click.option("--account", default="", metavar="ACCOUNT", callback=_account, help="Only of this account.")
@generation_option("any")
@optional_reason_option
def revoke(start: Start, lease: str, consumer: str, account: str, generation: int, reason: str) -> None:
    """End leases: one by its id, or all of a consumer, an account or a generation.

    If processes share an identity, lease list shows the newest lease only: to end another, give its whole id and
    --consumer.

    Every broker service refuses to renew them from now on, and rotation retire does not wait for them. Nothing is taken
    back: a copy of a bundle works until its certificate expires. A consumer that has the right gets new bundles:
    take the right away first, or suspend the account.

    For a directory, it removes the files in it and gives the leases back that are kept there. No other option is
    needed. With BROKER_ADDR set and no option, an id is that of a lease of yours, and is given back; other leases that
    share its line stay.
    """
    if lease and not _is_id(lease):
        if consumer or account or generation or reason:
            raise InputError("a directory is revoked without further options", hint="leave them out, or name an id")
        revoke_own(start, kept_in(start, lease))
        return
    if lease and start.config["service.address"] and not (consumer or account or generation or reason):
        revoke_named(start, lease)
        return
    if generation and not account:
        raise InputError("--generation requires --account", hint="each account counts its own: --account ACCOUNT")
    if not (lease or consumer or account):
        raise InputError("nothing to revoke is named", hint="give a LEASE-ID, --consumer NAME or --account ACCOUNT")
    if not reason:
        raise InputError("--reason is missing", hint="--reason TEXT; it is stored in the evidence")
    if account:
        start.broker.leases.accounts.read(account_name(account))  # or raises
    ended = start.broker.leases.revoke(Which(lease, consumer, account, generation), reason)
    if not ended:
        named = f"generation {generation} of {account}" if generation else account
        further = "; for a lease that it does not show, give --consumer NAME too" if lease and not consumer else ""
        raise _unknown(lease or consumer or named, _HELD + further)
    show_done(_done(lease, ended), leases=[_row(one) for one in ended])
    note("bundle get --hold hears of it from a service; any other copy works until its certificate expires")


@command.verb("key", example="broker lease key rotate")
@click.argument("action", metavar="rotate", default="", callback=_rotate)
@click.option("--again", is_flag=True, help="Rotate even if the newest key is less than a day old: it may have leaked.")
def key(start: Start, action: str, again: bool) -> None:
    """Rotate the key that signs leases: "broker lease key rotate", from a timer or after a leak.

    Makes a new key, unless the newest is less than a day old. Running services sign with it within 30 seconds. The key
    before it verifies for 75 minutes, until no lease that it signed can be valid. The next run after that destroys it.
    """
    keys = start.broker.rotate_lease_key(again=again)
    done = f"{action}d: key {keys.newest} signs leases since {keys.made:%F %TZ}"
    show_done(done, changed=keys.changed, newest=keys.newest, made=keys.made, ends=keys.ends)
    for kid, end in keys.ends.items():
        note(f"key {kid} verifies until {end:%F %TZ}; then the same command destroys it")


def _done(lease: str, ended: Sequence[Held]) -> str:
    lines = [f"{record.name}, generation {h.generation} of {h.account}/{h.application}" for record, h in ended]
    shared = lease and any(h.shared for _, h in ended)
    others = "\nother leases of the same consumer stay: --consumer NAME ends all" if shared else ""
    return "\n".join(f"revoked: {line}" for line in lines) + others


def _unknown(name: str, hint: str) -> UnknownNameError:
    return UnknownNameError(f"nothing that is held fits {name[:80]!r}", hint=hint)


def _row(one: Held) -> dict[str, object]:
    record, h = one
    return {
        "lease": h.lease,
        "consumer": record.name,
        "entity": record.entity,
        "account": h.account,
        "application": h.application,
        "kind": h.kind,
        "generation": h.generation,
        "since": h.since,
        "until": h.until,
        "shared": h.shared,
    }
