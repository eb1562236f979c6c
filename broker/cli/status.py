"""`broker status`: accounts, stages, expiry, and who must act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from broker.cli.broker_service import service
from broker.cli.exits import CODES
from broker.cli.options import accounts_argument
from broker.cli.output import show_findings, show_obstacles, show_table, when, wrote_json
from broker.cli.start import Start
from broker.errors import DeniedError, Kind
from broker.fetching.service import Service
from broker.model.finding import Severity
from broker.model.life_cycle import State
from broker.model.names import AccountName

if TYPE_CHECKING:
    from broker.compose.status import AccountStatus


_COLOURS: Final = {state.value: "yellow" for state in (State.SUSPENDED, State.DUE)} | {
    state.value: "red" for state in (State.EXPIRED, State.STOPPED)
}
_WORST: Final = (State.EXPIRED.value, State.SUSPENDED.value, "pending")  # of a consumer's applications
_CODES: Final = {"red": CODES[Kind.REFUSED], "yellow": CODES[Kind.WAITING]}


@click.command("status", epilog="Example: broker status -o json")
@accounts_argument
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 6 or 7 if an account needs a person; see above.")
@click.pass_obj
def command(start: Start, accounts: tuple[AccountName, ...], everything: bool, detailed_exitcode: bool) -> int:
    """Show each account, the worst first: state, generations, expiry, when renewal is due, who must act next.

    Shows all accounts if none is named. For monitoring, --detailed-exitcode exits with 6 if an account is expired or
    stopped, else with 7 if one is suspended or its renewal is due, else with 0.

    With BROKER_ADDR set, it asks that service, and shows the applications that the caller may use.
    """
    broker_service = service(start)
    if broker_service:
        return _consumers(start, broker_service, () if everything else accounts, detailed_exitcode)
    order = list(State)
    found, read = start.broker.statuses(() if everything else accounts, lambda: start.now)
    found.sort(key=lambda status: order.index(status.state))
    if not wrote_json(found):
        _show(found, start)
        show_findings(f for f in start.broker.notifying.findings(read) if f.severity is not Severity.NOTE)
    worst = _COLOURS.get(found[0].state.value) if found else None
    return _CODES[worst] if detailed_exitcode and worst else 0


def _consumers(start: Start, asked: Service, accounts: tuple[AccountName, ...], detailed_exitcode: bool) -> int:
    found = [one for one in asked.applications() if not accounts or one.account in accounts]
    unknown = next((name for name in accounts if name not in {one.account for one in found}), "")
    if unknown:
        raise DeniedError(f"no right to {unknown}, or it does not exist", hint="broker status shows what may be used")
    found.sort(key=lambda one: (_WORST.index(one.state) if one.state in _WORST else len(_WORST), one.account))
    if not wrote_json(found):
        show_table(
            ["application", "state", "generation", "expires"],
            [
                (f"{one.account}/{one.application}", one.state, one.generation, when(one.not_after, start.clock()))
                for one in found
            ],
            empty="there is no right to any application: broker vault enrol --help",
            colours=_COLOURS,
        )
    worst = _COLOURS.get(found[0].state) if found else None
    return _CODES[worst] if detailed_exitcode and worst else 0


def _show(found: Sequence[AccountStatus], start: Start) -> None:
    show_table(
        ["account", "state", "generations", "expires", "renewal due", "who", "next"],
        [
            (
                *(status.account, status.state.value, _stages(status)),
                *(when(status.not_after, start.now), when(status.due, start.now), status.who.value),
                f"{status.message}: {status.hint}" if status.hint else status.message,
            )
            for status in found
        ],
        empty="there are no accounts yet: broker account add --help",
        colours=_COLOURS,
    )
    for status in found:
        show_obstacles(status.obstacles)


def _stages(status: AccountStatus) -> str:
    living = [g for g in status.generations if g.stage.living]
    return ", ".join(f"{g.number} {g.stage.value}{' (rolled back)' if g.rolled_back else ''}" for g in living)
