"""Two years of rotation in minutes: real vault and stand-in, the sweep, a team, consumers, and a moved clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from partner_standin import Standin

from broker.compose.graph import Wiring
from broker.copies import replace
from broker.errors import BrokerError
from broker.model.names import AccountName
from broker.model.notice_rules import Channels
from broker.scheduling.sweep import Outside
from broker.vault.layout import right
from tests.chaos.years_office import APPLICATION, Mailbox, Reader, Team
from tests.chaos.years_partner import DAY, Agenda, Clock, Contract, Partner
from tests.support.console import inside
from tests.support.saved_states import account_faults
from tests.support.system import SUBJECT, System, made_system
from tests.support.vault import TestVault, a_consumer, login

BEGIN: Final = datetime(2027, 9, 1, 8, tzinfo=UTC)  # it goes through 29 February 2028, and two changes of clocks a year


@dataclass
class Years:
    """The simulation. Nobody runs the scheduler before `down`; it then runs for `up`."""

    system: System
    team: Team
    readers: dict[AccountName, Reader]
    mailbox: Mailbox
    dice: random.Random
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    down: datetime = BEGIN
    up: timedelta = 25 * DAY

    def __post_init__(self) -> None:
        """Connect the scheduler as `broker rotation run` does, with people in place of SMTP and hooks."""
        broker = self.team.broker
        notices = replace(broker.notifying.notices, channels=Channels(True, False), deliver=self.mailbox)
        self.sweeps = broker.scheduling.sweeps
        self.sweeps.outside = Outside(self.team.submits, lambda: None, notices.notify, self._hook)

    def _hook(self, _: object, __: object, events: Collection[str], ___: object) -> Iterator[tuple[str, BrokerError]]:
        self.seen.update(f"hook {event}" for event in events)
        return iter(())

    @property
    def clock(self) -> Clock:
        """The simulated time."""
        return self.team.partner.agenda.clock

    def run(self, length: timedelta, *, step: timedelta) -> None:
        """Go on for `length`, by about a `step` each time."""
        end = self.clock.now + length
        while self.clock.now < end:
            self.clock.now += step * self.dice.uniform(0.5, 1.5)
            self.team.partner.agenda.due()
            if self.clock.now >= self.down + self.up:
                self.down, self.up = self.clock.now + DAY * self.dice.uniform(1, 3), DAY * self.dice.uniform(60, 150)
                self.seen["nobody runs the scheduler for days"] += 1
            if self.clock.now >= self.down:
                self.seen["sweeps"] += 1
                report = self.sweeps.sweep()
                self.seen.update(f"{deed.do} {deed.result.value}" for deed in report.deeds)
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
        wrong = reader.calls_partner()
        if not wrong and reader.is_over and not self.mailbox.told(name, since=reader.not_after - 40 * DAY):
            wrong = f"{name}: nobody was notified before its certificate ended"
        if wrong:
            self.wrong.append(f"{self.clock.now:%F %H:%M} {wrong}")

    def faults(self) -> Iterator[str]:
        """Yield what is wrong: keys lost or left over, evidence that does not fit, notices that came twice."""
        yield from self.mailbox.faults()
        for name in self.readers:
            self.team.broker.settle(name)
            yield from (f"{name}: {fault}" for fault in account_faults(self.system.vault.admin, name))


@contextmanager
def two_years(vault: TestVault, directory: Path, *, seed: int, lifetimes: Sequence[int]) -> Iterator[Years]:
    """Yield a simulation with an account for each of `lifetimes` (days), which has requested its first certificate.

    `seed` decides everything.
    """
    dice, clock = random.Random(seed), Clock(BEGIN)
    contracts = {
        AccountName(f"acme-{number}"): Contract(f"MZP{number:07}", days * DAY, [f"first:{number}"])
        for number, days in enumerate(lifetimes)
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
            _add(system, clock, name, contract, by_hand=name in team.by_hand)
            team.sets_password(name, contract.passwords[0])
            partner.agenda.after(partner.days(0, 2), partial(team.looks, name))
            broker.rotation.draft(name)
            for number, days in enumerate(_occasions(dice), list(contracts).index(name)):
                change = partial(partner.change_password, contract, overlap=number % 2 == 0)
                partner.agenda.after(days, change)
        rights = [right("stellantis", "stand-in", name, APPLICATION) for name in contracts]
        logs_in = partial(login, vault.admin, a_consumer(vault.admin, "reader", rights))
        readers = {name: Reader(team, name, logs_in, system.home / "bundles" / name) for name in contracts}
        yield Years(system, team, readers, Mailbox(clock, dice), dice)


def _add(system: System, clock: Clock, name: AccountName, contract: Contract, *, by_hand: bool) -> None:
    subject = [part for pair in SUBJECT for part in ("--subject", pair)]
    line = ["account", "add", name, "--environment", "stand-in", "--base-url", system.partner.api_url]
    line += ["--login", contract.login, "--contact", "desk@partner.example", "--team", "team@acme.example", *subject]
    promotion = ["account", "set", name, "--promotion", "manual" if by_hand else "auto"]
    for words in (line, ["app", "add", f"{name}/{APPLICATION}"], promotion):
        ended = inside(words, home=system.home, environment=system.environment, wiring=Wiring(clock=clock))
        assert ended.code == 0, ended.err


def _occasions(dice: random.Random) -> Iterator[timedelta]:
    at = DAY * dice.uniform(20, 75)
    while at < 800 * DAY:
        yield at
        at += DAY * dice.uniform(100, 400)
