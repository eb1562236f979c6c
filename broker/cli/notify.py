"""`broker notify`: recipients of notices, and whether notices reach them."""

import click

from broker.cli.noun import Noun
from broker.cli.output import note, show_table, when, wrote_json
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.duration import counted
from broker.model.names import mail_address
from broker.model.recipient import WEBHOOK


def _names(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value if value == WEBHOOK else mail_address(value) for value in values)


@click.group("notify", cls=Noun, epilog="Example: broker notify test --all")
def command() -> None:
    """Test the recipients of notices, and show which of them are reached."""


@command.verb("list", example="broker notify list -o json")
def list_(start: Start) -> None:
    """List recipients: their accounts, the last test, since when their mails bounce, the last digest."""
    found = start.broker.notifying.statuses()
    if wrote_json(found):
        return
    show_table(
        ["recipient", "accounts", "last test", "last sent", "dead since", "last digest", "reason"],
        [
            (
                f"{one.recipient}{' (partner)' if one.at_partner else ''}",
                "all" if one.recipient == WEBHOOK else ", ".join(one.accounts),
                when(one.tested_at, start.now),
                when(one.sent_at, start.now),
                when(one.dead_since, start.now),
                when(one.last_digest, start.now),
                one.reason,
            )
            for one in found
        ],
        empty="nobody is notified: broker account set ACCOUNT --team MAIL",
    )


@command.verb("test", example="broker notify test --all")
@click.argument("recipients", metavar="[ADDRESS]...", nargs=-1, callback=_names)
@click.option("--all", "everything", is_flag=True, help="The team of every account, and the webhook.")
def test(start: Start, recipients: tuple[str, ...], everything: bool) -> None:
    """Send a test to recipients, and record it. The word webhook stands for the webhook.

    A recipient whose mails bounced is counted as reached again after a test by its address, until the test bounces too.
    --all sends nothing to the partner's contacts: name their address.
    """
    if bool(recipients) == everything:
        raise InputError("give either addresses or --all", hint="broker notify list shows them")
    results = []
    for one in start.broker.notifying.test(recipients, everything=everything):
        note(f"{one.recipient}: {f'error: {one.error.message}' if one.error else 'sent'}")
        results.append(one)
    failed = [one for one in results if one.error]
    if failed and failed[0].error:
        raise failed[0].error
    if not wrote_json({"success": True, "sent": [one.recipient for one in results]}):
        note(f"{counted(len(results), 'test is', 'tests are')} on the way: a bounce shows in broker notify list")
