"""Health and numbers of the agent, computed from the files on disk."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import or_
from typing import Final

from msgspec import Struct

from broker.agent.following import Condition, Follower
from broker.delivery.restoring import whole
from broker.model.bundle import Manifest
from broker.model.clock import system_clock

_TRIES: Final = 3  # that failed in a row: the start waits no longer for this bundle
_PREFIX: Final = "credential_broker_agent_"


class BundleHealth(Struct, frozen=True):
    """What the files of a bundle say now."""

    name: str
    is_alive: bool
    condition: Condition
    since: datetime
    message: str
    failures: int
    hook_failures: int
    manifest: Manifest | None

    @property
    def is_ready(self) -> bool:
        """Whether the published generation is whole and its certificate has not expired."""
        return self.manifest is not None and self.manifest.not_after > system_clock()

    @property
    def shown(self) -> dict[str, object]:
        """For people and programs. Nothing in it is secret."""
        found = self.manifest
        return {
            "bundle": self.name,
            "ready": self.is_ready,
            "condition": self.condition.value,
            "since": f"{self.since:%FT%TZ}",
            "message": self.message,
            "generation": found.generation if found else None,
            "expires": f"{found.expires:%FT%TZ}" if found else None,
            "not_after": f"{found.not_after:%FT%TZ}" if found else None,
        }


class Health:
    """The health of all bundles."""

    def __init__(self, followers: Callable[[], Sequence[Follower]]) -> None:
        self._followers = followers

    @property
    def is_started(self) -> bool:
        """Whether a bundle is on disk, whole, and each other one is too, or has failed some times."""
        return _is_started(self.bundles())

    @property
    def is_alive(self) -> bool:
        """Whether each bundle is looked after. It does not depend on the broker, nor on any date."""
        return all(one.is_alive for one in self._followers())

    @property
    def line(self) -> str:
        """The condition of the bundles, in a line for `systemctl status`."""
        found = [(one.table.name, one.standing) for one in self._followers()]
        bad = [f"{name}: {one.shown}" for name, one in found if one.condition is not Condition.OK]
        return "; ".join([f"{len(found) - len(bad)} of {len(found)} bundles are current", *bad])

    def bundles(self) -> list[BundleHealth]:
        """Return the health of each bundle."""
        return [
            BundleHealth(
                one.table.name,
                one.is_alive,
                one.standing.condition,
                one.standing.since,
                one.standing.message,
                one.failures,
                one.hooks.failures,
                whole(one.table.root),
            )
            for one in self._followers()
        ]

    def answer(self, path: str) -> tuple[int, str, str] | None:
        """Return status, media type and text, None for an unknown path."""
        if path == "/livez":
            return (
                (200 if self.is_alive else 503),
                "text/plain",
                "ok\n" if self.is_alive else "a bundle has no thread\n",
            )
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", metrics(self.bundles())
        if path not in ("/startz", "/readyz"):
            return None
        found = self.bundles()
        good = _is_started(found) if path == "/startz" else bool(found) and all(one.is_ready for one in found)
        return (200 if good else 503), "application/json", json.dumps([one.shown for one in found], indent=2) + "\n"


def _is_started(bundles: Sequence[BundleHealth]) -> bool:
    """One that fails does not keep the programs from starting that use the others."""
    there = [one.manifest is not None and one.condition is not Condition.STARTING for one in bundles]
    failed = [one.failures >= _TRIES for one in bundles]
    return any(there) and all(map(or_, there, failed))


def metrics(bundles: Sequence[BundleHealth]) -> str:
    """Return the numbers of all bundles, in the text format of Prometheus."""
    families: dict[str, tuple[str, Callable[[BundleHealth], float | None]]] = {
        f"{_PREFIX}ready": ("Whether the files are whole and the certificate has not expired.", lambda b: b.is_ready),
        f"{_PREFIX}generation": ("Generation of the files.", lambda b: b.manifest.generation if b.manifest else None),
        f"{_PREFIX}lease_expires_timestamp_seconds": (
            "End of the lease.",
            lambda b: b.manifest.expires.timestamp() if b.manifest else None,
        ),
        f"{_PREFIX}failures": ("Failures in a row.", lambda b: b.failures),
        f"{_PREFIX}hook_failures": ("Failures of the hook in a row.", lambda b: b.hook_failures),
        "x509_cert_not_after": (
            "End of the certificate.",
            lambda b: b.manifest.not_after.timestamp() if b.manifest else None,
        ),
    }
    lines = []
    for name, (meaning, value) in families.items():
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
        lines += [
            f"{name}{{{_labels(one)}}} {float(found):.0f}" for one in bundles if (found := value(one)) is not None
        ]
    name = f"{_PREFIX}condition"
    lines += [f"# HELP {name} How it is with a bundle: 1 for the condition that it is in.", f"# TYPE {name} gauge"]
    for one in bundles:
        lines += [f'{name}{{{_labels(one)},condition="{c.value}"}} {int(c is one.condition)}' for c in Condition]
    return "\n".join(lines) + "\n"


def _labels(one: BundleHealth) -> str:
    account, _, application = one.name.partition("/")
    return f'account="{account}",application="{application}"'
