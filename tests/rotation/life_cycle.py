"""The whole life of an account as steps, each one command, each safe to run again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from broker.errors import VaultUnavailableError
from broker.model import changes
from broker.model.account import Account
from broker.model.generation import Closed, Submission
from broker.model.obstacle import TRY_TAKES
from broker.model.secret import Secret
from broker.model.subject import KeyRules
from broker.rotation.amend import amend, settle
from broker.rotation.canary import try_out
from broker.rotation.draft import close_request, draft
from broker.rotation.open import add_account, add_application
from broker.rotation.password import set_password
from broker.rotation.promote import promote, reject, roll_back
from broker.rotation.retire import retire
from broker.rotation.submit import submit
from tests.rotation.simulation import Killed, Simulation
from tests.support.accounts import BY, MZP, a_certificate, an_account, anchors_named

__all__ = ["LIFE", "Commands", "Step", "lived", "midway", "outcome", "run"]

RULES = KeyRules()
PATIENCE = TRY_TAKES + timedelta(minutes=1)  # what a person waits before the same command again


@dataclass
class Commands:
    """What people and machines can do, on one sim."""

    sim: Simulation
    by: str = BY

    def open(self) -> None:
        fresh = an_account()
        add_account(replace(fresh, outbox=(), head=type(fresh.head)()), accounts=self.sim, by=self.by)

    def application(self, name: str = "fleet") -> None:
        add_application(MZP, name, f"id-{name}", accounts=self.sim, clock=self.sim.clock, by=self.by)

    def password(self, text: str) -> None:
        set_password(
            MZP, Secret(text), accounts=self.sim, passwords=self.sim.passwords, clock=self.sim.clock, by=self.by
        )

    def draft(self) -> str:
        return draft(MZP, RULES, accounts=self.sim, keys=self.sim.keys, clock=self.sim.clock, by=self.by).csr

    def submit(self) -> None:
        number = self.sim.account.next_request - 1
        sent = Submission(self.sim.now, "eml", message_id="<1@broker.test>")
        submit(MZP, number, sent, accounts=self.sim, by=self.by)

    def answer(self, number: int) -> None:
        """Import what came back, as `receive` does: all in one write."""

        def admit(account: Account) -> Account:
            at, request = self.sim.now, account.request(number)
            certificate = replace(a_certificate(account, number), spki=request.spki)
            account = changes.ca_accepted(account, anchors_named("ca"), at=at, by=self.by)
            if account.trust is None:
                account = changes.trust_set(account, anchors_named("server-ca"), at=at, by=self.by)
            return changes.answered(account, number, certificate, at=at, by=self.by)

        amend(self.sim, MZP, admit)

    def trust(self, name: str) -> None:
        def change(account: Account) -> Account:
            return changes.trust_set(account, anchors_named(name), at=self.sim.now, by=self.by)

        amend(self.sim, MZP, change)

    def close(self, number: int = 0) -> None:
        close_request(MZP, Closed.CANCELLED, number, accounts=self.sim, clock=self.sim.clock, by=self.by)

    def canary(self, number: int) -> None:
        try_out(MZP, number, accounts=self.sim, canary=self.sim.canary, clock=self.sim.clock, by=self.by)

    def promote(self, number: int) -> int:
        return promote(MZP, number, accounts=self.sim, canary=self.sim.canary, clock=self.sim.clock, by=self.by).number

    def roll_back(self, number: int) -> int:
        return roll_back(
            MZP, number, accounts=self.sim, canary=self.sim.canary, clock=self.sim.clock, by=self.by
        ).number

    def reject(self, number: int) -> None:
        reject(MZP, number, "wrong contract", accounts=self.sim, clock=self.sim.clock, by=self.by)

    def retire(self, number: int) -> None:
        retire(MZP, number, accounts=self.sim, stragglers=self.sim.stragglers, clock=self.sim.clock, by=self.by)

    def settle(self) -> None:
        settle(MZP, accounts=self.sim, log=self.sim.append, keys=self.sim.keys, passwords=self.sim.passwords)

    # -- generations by what they are made of: numbers differ after a kill

    def made_of(self, slot: int, password: str) -> int:
        """Return the newest generation with the key of `slot` and `password`."""
        return max(
            g.number
            for g in self.sim.account.generations
            if g.parts.key == f"kv:{slot}" and self.sim.kept[g.parts.password] in (password, None)
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
    lambda c: c.promote(c.made_of(2, "pw-2")),  # joined to pw-3 first
    lambda c: c.roll_back(c.made_of(1, "pw-3")),
    lambda c: c.promote(c.made_of(2, "pw-3")),  # held, and named by a person
    lambda c: c.settle(),
    lambda c: c.roll_back(c.made_of(1, "pw-2")),  # joined to pw-3 first
    lambda c: c.promote(c.made_of(2, "pw-3")),
    lambda c: c.draft(),
    lambda c: c.close(3),
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
            (g.stage.value, g.parts.key, sim.kept[g.parts.password] or "", g.parts.certificate, g.parts.trust, g.held)
            for g in account.generations
            if g.stage.deliverable or g.stage.value == "candidate"
        ),
        "password": sim.secret(account.password) if account.password else None,
        "pins": (account.issuing, account.trust),
        "business": (account.outbox, account.doomed_keys, account.doomed_passwords),
        "keys": sorted(map(str, sim.living_keys())),
        "passwords": sorted(sim.secret(slot) for slot in sim.living_passwords()),
        "keys ever made": sum(isinstance(ref, str) for ref in sim.kept),
        "breaker": account.breaker,
    }
