"""The life cycle of an account as steps, each one command, each safe to repeat."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.copies import replace
from broker.errors import VaultUnavailableError
from broker.model.account import Account
from broker.model.changes import registering, requesting
from broker.model.clock import Stamp
from broker.model.generation import Closed, Parts, Submission
from broker.model.secret import Secret
from broker.model.todo import TRY_TIMEOUT
from broker.rotation.amend import amend, settle
from broker.rotation.registry import Registry
from broker.rotation.rotation import Rotation
from tests.rotation.simulation import Killed, Simulation
from tests.support.accounts import BY, MZP, a_certificate, an_account, ca_set_named

__all__ = ["LIFE", "Commands", "Step", "lived", "midway", "outcome", "run"]

PATIENCE = TRY_TIMEOUT + timedelta(minutes=1)  # what a person waits before the same command again


@dataclass
class Commands:
    """The commands of people and machines, on one simulation."""

    sim: Simulation
    by: str = BY

    @property
    def rotation(self) -> Rotation:
        return self.sim.rotation(self.by)

    @property
    def registry(self) -> Registry:
        return self.sim.registry(self.by)

    def open(self) -> None:
        fresh = an_account()
        self.registry.add_account(replace(fresh, outbox=(), head=type(fresh.head)()))

    def application(self, name: str = "fleet") -> None:
        self.registry.add_application(MZP, name, f"id-{name}")

    def password(self, text: str) -> None:
        self.registry.set_secret(MZP, Secret(text))

    def draft(self) -> str:
        return self.rotation.draft(MZP).csr

    def submit(self) -> None:
        number = self.sim.account.next_request - 1
        self.rotation.submit(MZP, number, Submission(self.sim.now, "eml", message_id="<1@broker.test>"))

    def answer(self, number: int, days: int = 365) -> None:
        """Import a certificate that lasts for `days`, as `receive` does: all in one write."""

        def admit(account: Account) -> Account:
            stamp, request = Stamp(self.sim.now, self.by), account.request(number)
            certificate = replace(a_certificate(account, number, days=days), spki=request.spki)
            account = registering.ca_accepted(account, ca_set_named("ca"), stamp)
            if account.trust is None:
                account = registering.trust_set(account, ca_set_named("server-ca"), stamp)
            return requesting.answered(account, number, certificate, stamp)

        amend(self.sim, MZP, admit)

    def trust(self, name: str) -> None:
        def change(account: Account) -> Account:
            return registering.trust_set(account, ca_set_named(name), Stamp(self.sim.now, self.by))

        amend(self.sim, MZP, change)

    def close(self, number: int = 3) -> None:
        self.rotation.close_request(MZP, Closed.CANCELLED, number)

    def canary(self, number: int) -> None:
        self.rotation.try_out(MZP, number)

    def join(self, slot: int, password: str) -> None:
        """Join the candidate with the certificate of `slot` and the one with `password`, whatever became of them."""
        born = self.sim.account.generations
        one = next(g for g in born if g.parts.key == f"kv:{slot}")
        other = [g for g in born if not g.parts.key and self.sim.password(g.parts.password) == password][-1]
        self.rotation.join(MZP, one.number, other.number)

    def promote(self, number: int) -> int:
        return self.rotation.promote(MZP, number).generation

    def roll_back(self, number: int) -> int:
        return self.rotation.roll_back(MZP, number).generation

    def reject(self, number: int) -> None:
        self.rotation.reject(MZP, number, "wrong contract")

    def retire(self, number: int) -> None:
        self.rotation.retire(MZP, number)

    def settle(self) -> None:
        settle(MZP, accounts=self.sim, log=self.sim.append, keys=self.sim.keys, secrets=self.sim.secrets)

    # -- generations by what they are made of: numbers differ after a kill

    def made_of(self, slot: int, password: str) -> int:
        """Return the newest generation with the key of `slot` and `password`."""
        return max(
            g.number
            for g in self.sim.account.generations
            if self.sim.account.parts_of(g).key == f"kv:{slot}"
            and self.sim.password(self.sim.account.parts_of(g).password) in (password, None)
        )

    def retire_all(self) -> None:
        for generation in self.sim.account.generations:
            if generation.stage.value in ("previous", "rejected"):
                self.retire(generation.number)


Step = Callable[[Commands], object]

LIFE: tuple[Step, ...] = (
    lambda c: c.open(),
    lambda c: c.application(),
    lambda c: c.password("pw-1"),
    lambda c: c.draft(),
    lambda c: c.submit(),
    lambda c: c.answer(1),
    lambda c: c.promote(1),
    lambda c: c.settle(),
    lambda c: c.password("pw-2"),
    lambda c: c.promote(c.made_of(1, "pw-2")),
    lambda c: c.draft(),
    lambda c: c.submit(),
    lambda c: c.answer(2),
    lambda c: c.password("pw-3"),
    lambda c: c.promote(c.made_of(1, "pw-3")),
    lambda c: c.settle(),
    lambda c: c.promote(c.made_of(2, "pw-3")),  # laid over pw-3
    lambda c: c.roll_back(c.made_of(1, "pw-3")),
    lambda c: c.promote(c.made_of(2, "pw-3")),  # displaced by the roll-back, and named by a person
    lambda c: c.settle(),
    lambda c: c.roll_back(c.made_of(1, "pw-2")),  # laid over pw-3
    lambda c: c.promote(c.made_of(2, "pw-3")),
    lambda c: c.draft(),
    lambda c: c.close(3),
    lambda c: c.password("pw-4"),
    lambda c: c.draft(),
    lambda c: c.answer(4),
    lambda c: c.join(4, "pw-4"),
    lambda c: c.promote(c.made_of(4, "pw-4")),
    lambda c: c.retire_all(),
    lambda c: c.settle(),
)


def run(sim: Simulation, step: Step) -> None:
    """Take one step; where a fault ends it, wait and take it again, as a person or the next sweep would."""
    try:
        step(Commands(sim))
    except (Killed, VaultUnavailableError):
        if MZP in sim.documents:
            sim.assert_sound()
        sim.now += PATIENCE
        step(Commands(sim))


def lived(sim: Simulation, steps: Sequence[Step] = LIFE) -> Simulation:
    """Take `steps`, a day apart."""
    for step in steps:
        run(sim, step)
        sim.now += timedelta(days=1)
    return sim


@functools.cache
def midway(begun: str) -> Simulation:
    """Return 1 previous, 2 current, 3 a candidate (a password), and an "open request" 3 or not. Branch it."""
    steps: list[Step] = [
        lambda c: c.open(),
        lambda c: c.password("pw-1"),
        lambda c: c.draft(),
        lambda c: c.answer(1),
        lambda c: c.promote(1),
        lambda c: c.draft(),
        lambda c: c.answer(2),
        lambda c: c.promote(2),
        lambda c: c.password("pw-2"),
    ]
    return lived(Simulation(), [*steps, *([lambda c: c.draft()] if begun == "open request" else [])])


def outcome(sim: Simulation) -> dict[str, object]:
    """Return what a life came to, without the times, tries and numbers that a repetition may change."""
    account = sim.account
    return {
        "applications": account.applications,
        "requests": [(r.number, r.key, r.spki, r.csr, r.closed, len(r.submissions)) for r in account.requests],
        "generations": sorted(
            (g.stage.value, account.rolled_back(g), *map(str, parts_shown(sim, account.parts_of(g))))
            for g in account.generations
            if g.stage.deliverable or g.stage.value == "candidate"
        ),
        "password": sim.password(account.password) if account.password else None,
        "pins": (account.issuing, account.trust),
        "business": (account.outbox, account.doomed_keys, account.doomed_secrets),
        "keys": sorted(map(str, sim.living_keys())),
        "passwords": sorted(sim.secret(ref) for ref in sim.living_secrets()),
        "keys ever made": sum(ref.startswith("kv:") for ref in sim.kept),
        "breaker": account.breaker,
    }


def parts_shown(sim: Simulation, parts: Parts) -> tuple[object, ...]:
    return (parts.key, sim.password(parts.password), parts.certificate, parts.trust)
