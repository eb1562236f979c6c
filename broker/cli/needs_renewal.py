"""`broker needs-renewal`: tells programs by the exit code whether the renewal of an account must start."""

from datetime import timedelta
from typing import Final

import click

from broker.cli.options import account_argument
from broker.cli.output import note, wrote_json
from broker.cli.start import Start
from broker.model.duration import part_of
from broker.model.names import AccountName

_NOT_DUE: Final = 1
_NOTHING: Final = 2


@click.command("needs-renewal", epilog="Example: broker needs-renewal acme && broker csr new acme")
@account_argument
@click.option(
    "--renew-before", default="", metavar="TIME", help="When to renew: 30d, or 20% of the lifetime, before expiry."
)
@click.pass_obj
def command(start: Start, account: AccountName, renew_before: str) -> int:
    """Exit with 0 if the renewal of an account must start, 1 if not, 2 if there is nothing to renew, 255 for an error.

    It need not start while a request is open or a candidate waits. Fits ExecCondition= of systemd.
    """
    if renew_before:
        part_of(timedelta(days=1), renew_before)  # raises
    found = start.broker.planning.need(account, renew_before, start.broker.true_clock)
    if not wrote_json(found):
        note(f"{account}: {found.message}")
        if found.hint:
            note(f"hint: {found.hint}")
    if found.due is None:
        return _NOTHING
    return 0 if found.needed else _NOT_DUE
