"""Two years of rotation in minutes: real vault and stand-in, the sweep, a team, consumers, and a moved clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from partner_standin import Standin

from broker.compose.graph import Wiring
from broker.model.names import AccountName
from broker.vault.layout import right
from tests.chaos.years_office import APPLICATION, Reader, Team
from tests.chaos.years_partner import DAY, LIFETIMES, Agenda, Clock, Contract, Partner
from tests.support.console import inside
from tests.support.saved_states import account_faults
from tests.support.system import SUBJECT, System, made_system
from tests.support.vault import TestVault

STEP: Final = timedelta(hours=12)
BEGIN: Final = datetime(2027, 9, 1, 8, tzinfo=UTC)  # it goes through 29 February 2028, and two changes of clocks a year

Sweep = Callable[[], None]


@dataclass
class Years:
    """The simulation. `down` is when the scheduler runs again, if nobody runs it now."""

    system: System
    team: Team
    readers: dict[AccountName, Reader]
    sweep: Sweep
    dice: random.Random
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    down: datetime = BEGIN

    @property
    def clock(self) -> Clock:
        """The simulated time."""
        return self.team.partner.agenda.clock

    def run(self, length: timedelta) -> None:
        """Go on for `length`."""
        end = self.clock.now + length
        while self.clock.now < end:
            self.clock.now += STEP * self.dice.uniform(0.5, 1.5)
            self.team.partner.agenda.due()
            if self.dice.random() < STEP / (200 * DAY):
                self.down = self.clock.now + DAY * self.dice.uniform(1, 3)
                self.seen["nobody runs the scheduler for days"] += 1
            if self.clock.now >= self.down:
                self.sweep()
            for name in self.readers:
                self._read(name)

    def _read(self, name: AccountName) -> None:
        account, reader = self.team.broker.account(name), self.readers[name]
        if account.current is None:
            return
        is_new = reader.session is None or reader.session.manifest.generation != account.current.number
        if reader.session is None or (is_new and self.dice.random() < 0.8):  # others are late by a step
            reader.fetches(account)
            self.seen["a session swapped"] += is_new
        elif is_new:
            self.seen["a consumer was late"] += 1
        if wrong := reader.calls_partner():
            self.wrong.append(f"{self.clock.now:%F %H:%M} {wrong}")

    def faults(self) -> Iterator[str]:
        """Yield everything that is wrong in Vault: keys lost or left over, evidence that does not fit."""
        for name in self.readers:
            self.team.broker.settle(name)
            yield from (f"{name}: {fault}" for fault in account_faults(self.system.vault.admin, name))


@contextmanager
def two_years(vault: TestVault, directory: Path, *, seed: int, accounts: int) -> Iterator[Years]:
    """Yield a simulation with so many accounts, whose first certificates are requested; `seed` decides everything."""
    dice, clock = random.Random(seed), Clock(BEGIN)
    contracts = {
        AccountName(f"acme-{number}"): Contract(f"MZP{number:07}", lifetime, [f"first:{number}"])
        for number in range(accounts)
        for lifetime in [LIFETIMES[number % len(LIFETIMES)]]
    }
    logins = {contract.login: contract.passwords[0] for contract in contracts.values()}
    with ExitStack() as stack:
        # OpenSSL has a clock of its own, which does not move: the stand-in judges certificates itself
        faults = ["certificate-json=deserved"]
        standin = stack.enter_context(Standin(directory / "partner", accounts=logins, faults=faults, clock=clock))
        system = stack.enter_context(made_system(vault, standin))
        broker = stack.enter_context(system.broker(Wiring(clock=clock)))
        partner = Partner(standin, Agenda(clock), dice)
        team = Team(broker, partner, contracts, frozenset(list(contracts)[::3]))
        for name, contract in contracts.items():
            _add(system, clock, name, contract)
            team.sets_password(name, contract.passwords[0])
            partner.agenda.after(partner.days(0, 2), partial(team.looks, name))
            broker.rotation.draft(name)
            for days in _occasions(dice):
                change = partial(partner.change_password, contract, overlap=dice.random() < 0.5)
                partner.agenda.after(days, change)
        token = vault.consumer_token("reader", *(right("stellantis", "stand-in", n, APPLICATION) for n in contracts))
        readers = {name: Reader(team, name, token, system.home / "bundles" / name) for name in contracts}
        yield Years(system, team, readers, partial(_sweep, team), dice)


def _add(system: System, clock: Clock, name: AccountName, contract: Contract) -> None:
    subject = [part for pair in SUBJECT for part in ("--subject", pair)]
    line = ["account", "add", name, "--environment", "stand-in", "--base-url", system.partner.api_url]
    line += ["--login", contract.login, "--contact", "desk@partner.example", "--team", "team@acme.example", *subject]
    for words in (line, ["app", "add", f"{name}/{APPLICATION}"]):
        ended = inside(words, home=system.home, environment=system.environment, wiring=Wiring(clock=clock))
        assert ended.code == 0, ended.err


def _occasions(dice: random.Random) -> Iterator[timedelta]:
    at = DAY * dice.uniform(20, 200)
    while at < 800 * DAY:
        yield at
        at += DAY * dice.uniform(100, 400)


def _sweep(team: Team) -> None:
    """Do what the scheduler is to do, in a few lines."""
    broker = team.broker
    for name in team.contracts:
        account, now = broker.account(name), broker.clock()
        request = account.open_request
        if request and not request.submissions and name not in team.by_hand:
            team.sends(name, request, "smtp")
        if account.automatic_candidates and name not in team.by_hand and not account.breaker:
            team._tries(partial(broker.rotation.promote, name))
        status = broker.statuses([name], broker.clock)[0]
        if status.due and status.due <= now and not request and not account.candidates and not account.refused_request:
            broker.rotation.draft(name)
        for old in account.generations:
            if old.stage.value == "previous" and old.since < now - 7 * DAY:
                team._tries(partial(broker.rotation.retire, name, old.number))
