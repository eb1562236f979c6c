"""Rotation: a set tried, promoted, rolled back, retired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from broker.cli.guard import require_consent, yes_option
from broker.cli.obstacles import say_obstacles, shown_clock, shown_obstacles
from broker.cli.options import account_argument, generation_option, reason_options, the_reason
from broker.cli.output import note, note_done, output_option, show_json, show_table, stage_of, step, when
from broker.errors import InputError
from broker.model.names import AccountName
from broker.model.stage import Stage

if TYPE_CHECKING:
    from broker.cli.start import Start
    from broker.model.account import Account
    from broker.model.generation import Generation
    from broker.rotation.choosing import Promotion
    from broker.rotation.ports import Answer

__all__ = ["command"]


@click.group("rotation", epilog="Example: broker rotation promote acme")
def command() -> None:
    """Try a set at the partner, make it current, go back, end an overlap."""


@command.command("status", epilog="Example: broker rotation status acme -o json")
@account_argument
@output_option
@click.pass_obj
def status(start: Start, account: AccountName, output: str) -> None:
    """Show the generations of an account, its last canaries, and what stands in the way."""
    from broker.model.obstacle import paused_until
    from broker.vault.policies import Role

    broker = start.broker
    found, now = broker.account(account), shown_clock(broker)
    deliverable = [g.number for g in found.generations if g.stage.deliverable]
    holders = {number: sorted(broker.stragglers(account, number, Role.AUDITOR)) for number in deliverable}
    if output == "json":
        show_json(
            {
                "account": account,
                "current": found.current.number if found.current else None,
                "generations": [_facts(found, g) | {"held_by": holders.get(g.number, [])} for g in found.generations],
                "canaries": found.tries,
                "breaker": found.breaker,
                "not_before": paused_until(found, now),
                "obstacles": shown_obstacles(found, now),
            }
        )
        return
    show_table(
        ["generation", "stage", "changes", "expires", "password", "held by"],
        [
            (
                g.number,
                stage_of(found, g),
                ", ".join(sorted(g.parts.names)) if g.stage is Stage.CANDIDATE else "",
                when(found.certificate(found.parts_of(g).certificate).not_after, now),
                found.parts_of(g).password,
                ", ".join(holders.get(g.number, [])),
            )
            for g in found.generations
        ],
        empty=f"{account} has no generation yet: broker csr new {account}",
    )
    if found.tries:
        show_table(
            ["canary", "generation", "at", "verdict"],
            [(t.number, t.generation, f"{t.at:%F %TZ}", t.verdict or "never answered") for t in found.tries],
        )
    say_obstacles(found, now)
    _say_rejected(found)


@command.command("canary", epilog="Example: broker rotation canary acme --generation 2")
@account_argument
@generation_option("the newest candidate, else the current one")
@reason_options
@output_option
@click.pass_obj
def canary(start: Start, account: AccountName, generation: int, force: bool, reason: str, output: str) -> None:
    """Send one harmless real request with a set, and say what the partner's answer means.

    --force resets what keeps a machine from trying: a rejected login, a quota. Partners lock accounts: be sure.
    """
    from broker.rotation.canary import require_ok
    from broker.rotation.choosing import set_to_try
    from broker.vault.policies import Role

    broker = start.broker
    forced = the_reason(force, reason)
    found = broker.account(account, Role.CANARY)
    number = (found.generation(generation) if generation else set_to_try(found)).number
    if forced:
        broker.rotation.reset_breaker(account, forced)
    step(f"asking the partner with generation {number}")
    answer = broker.canary.try_out(account, number)
    if output == "table":
        note(f"generation {number} of {account}: {answer.verdict.value}: {answer.verdict.message}")
    require_ok(account, number, answer)
    if output == "json":
        show_json(_answered(account, number, answer))


@command.command("promote", epilog="Example: broker rotation promote acme")
@account_argument
@click.option(
    "--generation",
    type=click.IntRange(1),
    multiple=True,
    help="Which; else the newest candidate that no roll-back made. Twice: join two candidates into one first.",
)
@reason_options
@output_option
@click.pass_obj
def promote(
    start: Start, account: AccountName, generation: tuple[int, ...], force: bool, reason: str, output: str
) -> None:
    """Try a candidate at the partner, and make it current if the partner accepts it.

    A candidate has the parts that it changes: a certificate, a password. Two that the partner reissued together are
    joined by naming both, and tried as one. What a roll-back displaced is promoted again by its number.

    There is no promotion without a canary. --force only resets what keeps a machine from trying.
    """
    broker = start.broker
    forced = the_reason(force, reason)
    if forced:
        broker.rotation.reset_breaker(account, forced)
    if len(generation) > 2:  # noqa: PLR2004  # said by the message
        raise InputError("--generation was given more than twice", hint="join two candidates, then the next")
    number = broker.rotation.join(account, *generation).number if len(generation) > 1 else sum(generation)
    step("asking the partner")
    promotion = broker.rotation.promote(account, number)
    done = f"generation {promotion.number} of {account} is current"
    _show(account, promotion, output, done if promotion.changed else f"nothing to promote: {done}")


@command.command(
    "rollback", epilog="Example: broker rotation rollback acme --force --reason 'partner is down, old set known good'"
)
@account_argument
@generation_option("the one that the current one displaced")
@reason_options
@output_option
@click.pass_obj
def rollback(start: Start, account: AccountName, generation: int, force: bool, reason: str, output: str) -> None:
    """Make the previous generation current again. The displaced one is kept; only you, naming it, promote it again.

    If the password or the server's CA changed since, the old certificate comes back with the new ones. It is tried
    first; --force goes back untried.
    """
    forced = the_reason(force, reason)
    step("asking the partner")
    promotion = start.broker.rotation.roll_back(account, generation, untried_because=forced)
    done = "is current again" if promotion.changed else "was current already: nothing was done"
    _show(account, promotion, output, f"generation {promotion.number} of {account} {done}")


@command.command("reject", epilog="Example: broker rotation reject acme --generation 3 --reason 'wrong subject'")
@account_argument
@click.option("--generation", type=click.IntRange(1), required=True, help="The candidate to withdraw.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it goes into the evidence.")
@yes_option
@click.pass_obj
def reject(start: Start, account: AccountName, generation: int, reason: str, yes: bool) -> None:
    """Withdraw a candidate. No import brings its certificate back."""
    from broker.vault.policies import Role

    if not reason.isprintable() or not reason.strip():
        raise InputError("--reason is empty or holds a control character", hint="write it on one line")
    found = start.broker.account(account, Role.ROTATOR)
    answered = found.answered_only_by(found.generation(generation))
    if answered:
        require_consent(found, answered, yes=yes)
    changed = start.broker.rotation.reject(account, generation, reason.strip())
    note_done(f"generation {generation} of {account} is rejected", changed=changed)


@command.command("retire", epilog="Example: broker rotation retire acme --generation 1")
@account_argument
@click.option("--generation", type=click.IntRange(1), required=True, help="A previous or rejected one.")
@reason_options
@click.pass_obj
def retire(start: Start, account: AccountName, generation: int, force: bool, reason: str) -> None:
    """End an overlap: nothing hands the generation out any more, and secrets that no other shares are destroyed.

    Waits for consumers that still hold it (exit code 7), unless forced.
    """
    changed = start.broker.rotation.retire(account, generation, the_reason(force, reason))
    snapshots = "; snapshots of Vault may still hold its key"
    note_done(f"generation {generation} of {account} is retired", changed=changed, more=snapshots)


def _show(account: AccountName, promotion: Promotion, output: str, said: str) -> None:
    answer, way_back = promotion.answer, promotion.way_back
    if output == "json":
        facts = _answered(account, promotion.number, answer)
        show_json(facts | {"way_back": way_back.verdict.value if way_back else None, "changed": promotion.changed})
        return
    note(said)
    if way_back and way_back.verdict.value != "ok":
        note(f"careful: the partner's answer to the one before is {way_back.verdict.value}, so there is no way back")


def _answered(account: AccountName, number: int, answer: Answer | None) -> dict[str, Any]:
    return {
        "account": account,
        "generation": number,
        "verdict": answer.verdict.value if answer else None,
        "detail": answer.detail if answer else "",
    }


def _facts(account: Account, generation: Generation) -> dict[str, Any]:
    parts = account.parts_of(generation)
    return {
        "number": generation.number,
        "stage": generation.stage.value,
        "since": generation.since,
        "rolled_back": account.rolled_back(generation),
        "changes": sorted(generation.parts.names) if generation.stage is Stage.CANDIDATE else [],
        "key": parts.key,
        "password": parts.password,
        "not_after": account.certificate(parts.certificate).not_after,
    }


def _say_rejected(account: Account) -> None:
    for application in account.applications:
        if application.rejected_at:
            note(f"the partner rejected the client_id of {account.name}/{application.name}")
