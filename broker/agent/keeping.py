"""Leases that stay in the directory of a bundle when `bundle get` has ended: show, renew and revoke them later.

No lock is held while the service is asked. What it answered is written if the same lease is still kept.
"""

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from msgspec import Struct

from broker.agent.leases import LEASE, STATE, decoded, require_unclaimed, store
from broker.copies import replace
from broker.delivery.directory import withdraw
from broker.delivery.formats import MANIFEST, dump
from broker.delivery.restoring import read_back
from broker.delivery.root import Root, as_unusable, held
from broker.errors import BrokerError, ConflictError, InputError, RefusedError
from broker.fetching.service import Service
from broker.model.bundle import Granted, Manifest, Wanted
from broker.model.clock import Clock
from broker.model.lease import Lease
from broker.model.secret import Secret


class NoLeaseError(InputError):
    """No lease is kept in the directory."""


class Revoked(Struct, frozen=True):
    """Leases that were given back, and generations of other leases, which stay."""

    leases: tuple[Granted, ...]
    staying: tuple[Path, ...]


class Kept:
    """The leases that are kept in the directory `root`."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.root = root
        self._clock = clock

    def require(self) -> None:
        """Raise `InputError` if no lease is kept."""
        with self._opened():
            pass

    def current(self) -> tuple[Granted, Manifest]:
        """Return the lease of the published files, and their manifest; raise `InputError`, `RefusedError`."""
        with self._opened() as (directory, leases):
            found = read_back(directory)
        if not found:
            hint = f"{self.another(leases[0][0].lease)} writes them again"
            raise RefusedError(f"the files in {self.root} are missing or damaged", hint=hint)
        manifest = found.manifest
        own = _named(manifest.lease_id, leases)
        if not own:
            raise RefusedError(
                f"the files in {self.root} are of lease {manifest.lease_id}, which is not kept there",
                hint=f"a process with --hold gives it back itself; else {self.another(leases[0][0].lease)}",
            )
        return own, manifest

    def renew(self, service: Service, own: Granted, ttl: timedelta) -> tuple[Granted, int | None]:
        """Return the lease with a later end, and the current generation if it is another one."""
        lease = own.lease
        renewed, newer = service.extend(Wanted(lease.account, lease.application, ttl), own)
        with self._opened() as (directory, leases):
            found = read_back(directory)
            kept = _named(lease.id, leases)
            if not found or not kept or found.manifest.lease_id != lease.id:
                raise ConflictError(
                    f"the files in {self.root} were replaced or removed meanwhile", hint=self.command("show")
                )
            last = max(kept, renewed, key=lambda one: one.lease.expires)  # another process may have renewed it too
            store(directory, [(last if one is kept else one, name) for one, name in leases])
            manifest = Secret(dump(replace(found.manifest, expires=last.lease.expires)))
            with directory.opened(found.path.name) as generation:
                generation.write(MANIFEST, manifest)
        return last, newer

    def revoke(self, service: Service) -> Revoked:
        """Remove the files, then give back the leases. Those that cannot be given back stay in the file.

        Raise `BrokerError` for a lease that has not ended.
        """
        with self._opened() as (directory, leases):
            if STATE in directory.names():
                hint = "start broker agent there and stop it: that removes all of them, and gives the leases back"
                raise RefusedError(f"an agent wrote the files in {self.root}, and may have copies elsewhere", hint=hint)
            staying = [withdraw(directory, one.lease.id) for one, _ in leases][-1]
        failed: list[BrokerError] = []
        returned = [one for one, _ in leases if self._returned(service, one, failed)]
        gone = {one.lease.id for one in returned}
        with suppress(NoLeaseError), self._opened() as (directory, now):
            store(directory, [(one, name) for one, name in now if one.lease.id not in gone])
        if failed:
            hint = "; then ".join(filter(None, (failed[0].hint, self.command("revoke"))))
            raise type(failed[0])(f"the files are gone, but not revoked: {failed[0].message}", hint=hint)
        return Revoked(tuple(returned), staying)

    def command(self, verb: str) -> str:
        """Return the command that does `verb` with the lease."""
        return f"broker lease {verb} {shlex.quote(str(self.root))}"

    def another(self, lease: Lease) -> str:
        """Return the command that gets another lease, and the files with it."""
        return f"broker bundle get {lease.account}/{lease.application} --to {shlex.quote(str(self.root))}"

    def _returned(self, service: Service, one: Granted, failed: list[BrokerError]) -> bool:
        try:
            service.give_back(one)
        except BrokerError as error:
            if one.lease.expires > self._clock():
                failed.append(error)
                return False
        return True

    @contextmanager
    def _opened(self) -> Iterator[tuple[Root, list[tuple[Granted, str]]]]:
        """Lend the directory, locked, and the leases in it, one at least."""
        with as_unusable(self.root):
            is_there = (self.root / LEASE).is_file()
        if not is_there:
            raise self._nothing()
        with held(self.root) as directory:
            require_unclaimed(directory, self.root)
            leases = decoded(directory.read(LEASE))
            if not leases:
                raise self._nothing()
            yield directory, leases

    def _nothing(self) -> NoLeaseError:
        hint = "if BROKER_ADDR is set, bundle get keeps one with the files: broker bundle get --help"
        return NoLeaseError(f"no lease is kept in {self.root}", hint=hint)


def _named(lease_id: str, leases: Iterable[tuple[Granted, str]]) -> Granted | None:
    return next((one for one, _ in leases if one.lease.id == lease_id), None)
