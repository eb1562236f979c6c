"""`broker status`: accounts, stages, expiry, and who must act."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.options import accounts_argument
from broker.cli.output import show_obstacles, show_table, when, wrote_json
from broker.cli.start import Start
from broker.model.names import AccountName

if TYPE_CHECKING:
    from broker.compose.status import AccountStatus


@click.command("status", epilog="Example: broker status -o json")
@accounts_argument
@click.pass_obj
def command(start: Start, accounts: tuple[AccountName, ...], everything: bool) -> None:
    """Show each account: generations, expiry of the current certificate, when renewal is due, who must act next.

    Shows all accounts if none is named.
    """
    found = start.broker.statuses(() if everything else accounts, lambda: start.now)
    if wrote_json(found):
        return
    show_table(
        ["account", "generations", "expires", "renewal due", "who", "next"],
        [
            (
                *(status.account, _stages(status), when(status.not_after, start.now), when(status.due, start.now)),
                *(status.who.value, f"{status.message}: {status.hint}" if status.hint else status.message),
            )
            for status in found
        ],
        empty="there are no accounts yet: broker account add",
    )
    for status in found:
        show_obstacles(status.obstacles)


def _stages(status: AccountStatus) -> str:
    living = [g for g in status.generations if g.stage.living]
    return ", ".join(f"{g.number} {g.stage.value}{' (rolled back)' if g.rolled_back else ''}" for g in living)
