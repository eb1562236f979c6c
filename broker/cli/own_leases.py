"""A consumer's own leases, by their ids: list, show and revoke them through the service."""

from typing import Final

from broker.cli.broker_service import required_service
from broker.cli.output import note, show_details, show_done, show_table, when, wrote_json
from broker.cli.start import Start
from broker.errors import InputError, UnknownNameError
from broker.fetching.service import Service
from broker.model.lease import OwnLease

SHARED: Final = "+ processes with the same identity hold further leases"
SHOWN: Final = 12  # characters of an id in a table: enough to name it


def operators(start: Start) -> str:
    """Return how an operator asks for the leases of all."""
    source = start.config.values["service.address"].source
    return f"operators ask Vault, without service.address ({source})"


def list_own(start: Start, account: str) -> None:
    """List the leases of the caller, of one account or of all."""
    found = [one for one in required_service(start).leases() if account in ("", one.account)]
    if wrote_json([_row(one) for one in found]):
        return
    show_table(
        ["lease", "application", "gen", "until"],
        [
            (
                f"{one.lease_id[:SHOWN]}{'+' if one.shared else ''}",
                f"{one.account}/{one.application}",
                one.generation,
                f"{one.expires:%H:%M:%SZ}",
            )
            for one in found
        ],
        empty="you hold no lease",
    )
    if any(one.shared for one in found):
        note(SHARED)


def show_named(start: Start, lease: str) -> None:
    """Show a lease of the caller, in each generation that it holds."""
    found = _named(start, required_service(start), lease)
    if wrote_json([_row(one) for one in found]):
        return
    for one in found:
        show_details(
            {
                "lease": one.lease_id,
                "application": f"{one.account}/{one.application}",
                "generation": one.generation,
                "kind": one.kind,
                "since": f"{one.since:%F %TZ}",
                "until": when(one.expires, start.clock()),
                "shared": "with further leases of this identity" if one.shared else "no",
            }
        )


def revoke_named(start: Start, lease: str) -> None:
    """Give a lease of the caller back."""
    service = required_service(start)
    found = _named(start, service, lease)
    service.revoke(found[0])
    lines = [f"revoked: generation {one.generation} of {one.account}/{one.application}" for one in found]
    if any(one.shared for one in found):
        lines.append("other leases of the same line stay, until they end")
    show_done("\n".join(lines), leases=[_row(one) for one in found])
    note("a copy of the bundle works until its certificate expires")


def _named(start: Start, service: Service, lease: str) -> list[OwnLease]:
    found = [one for one in service.leases() if one.lease_id.startswith(lease)]
    if not found:
        hint = f"broker lease list shows yours; {operators(start)}"
        raise UnknownNameError(f"you hold no lease {lease!r}", hint=hint)
    if len({one.lease_id for one in found}) > 1:
        raise InputError(f"{lease} begins the ids of several leases", hint="broker lease list -o json")
    return found


def _row(one: OwnLease) -> dict[str, object]:
    return {
        "lease": one.lease_id,
        "account": one.account,
        "application": one.application,
        "kind": one.kind,
        "generation": one.generation,
        "since": one.since,
        "until": one.expires,
        "shared": one.shared,
    }
