"""A lease that `bundle get` kept in a directory: show, renew and revoke it through the service, as its consumer."""

import os
from pathlib import Path

from broker.agent.keeping import Kept
from broker.cli.broker_service import required_service
from broker.cli.output import at_time, note, show_details, show_done, wrote_json
from broker.cli.start import Start
from broker.delivery.directory import CURRENT
from broker.errors import BrokerError, DeniedError, RefusedError
from broker.fetching.service import renews_further
from broker.model.bundle import Granted
from broker.model.duration import parse_duration
from broker.model.lease import Lease, OwnLease


def kept_in(start: Start, directory: str) -> Kept:
    """Return the leases in `directory`, or in that of its link `current`, which bundle get prints."""
    path = Path(directory).absolute()
    is_link = path.name == CURRENT and os.path.islink(path)  # noqa: PTH114  # raises nothing
    return Kept(path.parent if is_link else path, start.clock)


def show_own(start: Start, kept: Kept) -> None:
    """Show the lease of the files in a directory, and the current generation."""
    own, _ = kept.current()
    lease = own.lease
    named = (lease.account, lease.application)
    service = required_service(start)
    current = service.application(*named)
    if not current:
        raise DeniedError(f"no right to {'/'.join(named)} any more", hint=f"{kept.command('revoke')} removes the files")
    held = any(_covers(one, lease) for one in service.leases())
    row = {
        "held": held,
        "lease": lease.id,
        "account": lease.account,
        "application": lease.application,
        "kind": lease.kind,
        "generation": lease.generation,
        "since": lease.first_issued,
        "until": lease.expires,
        "renewable_until": lease.renewable_until,
        "current": current.generation,
        "state": current.state,
        "directory": str(kept.root),
    }
    if wrote_json(row):
        return
    now = start.clock()
    show_details(
        {
            "lease": lease.id,
            "application": "/".join(named),
            "generation": f"{lease.generation} (current: {current.generation or '-'}; {current.state})",
            "since": f"{lease.first_issued:%F %TZ}",
            "until": at_time(lease.expires, now) if held else "ended, or revoked",
            "renewable": f"until {at_time(lease.renewable_until, now)}" if held else "no",
            "directory": kept.root,
        }
    )
    if not held:
        note(f"{kept.another(lease)} gets another lease; {kept.command('revoke')} removes the files")


def _covers(line: OwnLease, lease: Lease) -> bool:
    """Return whether a line of the caller's record has `lease`; a shared line names the newest of its leases only."""
    named = (line.account, line.application, line.generation)
    return named == (lease.account, lease.application, lease.generation) and (line.shared or line.lease_id == lease.id)


def renew_own(start: Start, kept: Kept, ttl: str) -> None:
    """Renew the lease of the files in a directory."""
    own, manifest = kept.current()
    asked, wanted = required_service(start), parse_duration(ttl or start.config["bundle.ttl"])
    try:
        renewed, newer = kept.renew(asked, own, wanted)
    except (DeniedError, RefusedError) as error:
        raise _refused(error, own, kept, start) from None
    lease = renewed.lease
    done = f"renewed: generation {lease.generation} of {lease.account}/{lease.application} until {lease.expires:%F %TZ}"
    show_done(done, lease=lease.id, until=lease.expires, generation=lease.generation, newer=newer)
    if newer:
        note(f"generation {newer} is current: {kept.another(lease)} gets it")
    elif not renews_further(lease, manifest.not_after):
        note(f"it cannot be renewed further: {kept.another(lease)} gets another lease")


def revoke_own(start: Start, kept: Kept) -> None:
    """Remove the files in a directory, and give its leases back."""
    kept.require()
    revoked = kept.revoke(required_service(start))
    ids = [one.lease.id for one in revoked.leases]
    show_done(f"revoked: {', '.join(ids)}; the files in {kept.root} are gone", leases=ids)
    for path in revoked.staying:
        note(f"{path} is kept: another lease or other files are in it")


def _refused(error: BrokerError, own: Granted, kept: Kept, start: Start) -> BrokerError:
    another = f"{kept.another(own.lease)} gets another lease"
    if own.lease.expires <= start.clock():
        return type(error)(f"the lease ended at {own.lease.expires:%F %TZ}", hint=another)
    if isinstance(error, DeniedError):
        hint = f"set BROKER_AUTH to the identity that fetched the files; if it is, {another}"
    else:
        hint = error.hint if "broker " in error.hint else another
    return type(error)(f"the lease was not renewed: {error.message}", hint=hint)
