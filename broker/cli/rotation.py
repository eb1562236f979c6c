"""`broker rotation`: try, promote, roll back, reject and retire generations."""

from datetime import datetime

import click

from broker.cli.exits import REFUSED
from broker.cli.noun import Noun
from broker.cli.options import (
    account_argument,
    generation_option,
    one_line,
    reason_option,
    reason_options,
    require_consent,
    the_reason,
    yes_option,
)
from broker.cli.output import (
    at_time,
    note,
    show_details,
    show_done,
    show_obstacles,
    show_table,
    step,
    wants_json,
    when,
    wrote_json,
)
from broker.cli.rehearse import rehearse
from broker.cli.rotation_plan import plan, show_steps, snooze
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.changes.moving import generation_to_try
from broker.model.duration import counted
from broker.model.life_cycle import Who
from broker.model.names import AccountName
from broker.model.role import Role
from broker.model.verdict import Verdict
from broker.rotation.reports import CanaryReport, GenerationReport, Promotion, SchedulerStatus, require_ok
from broker.scheduling.report import SweepReport


@click.group("rotation", cls=Noun, epilog="Example: broker rotation promote acme")
def command() -> None:
    """Plan renewals; try a generation at the partner, promote it, roll back, reject or retire it."""


command.verb("plan", example="broker rotation plan acme")(plan)
command.verb("snooze", example="broker rotation snooze acme --until 2026-12-31 --reason holiday")(snooze)


command.verb("rehearse", example="broker rotation rehearse acme -o json")(rehearse)


@command.verb("status", example="broker rotation status acme -o json")
@account_argument
def status(start: Start, account: AccountName) -> None:
    """Show where an account stands, since when and who acts next; generations, canaries, and the timeline.

    "held by" counts the consumers: -o json and broker lease list show who holds a generation, since when, until when.
    """
    found = start.broker.rotation_status(account, lambda: start.now)
    if wrote_json(found):
        return
    show_details(
        {
            "phase": f"{found.phase.value}, since {at_time(found.since, start.now)}",
            "who": "scheduler" if found.automatic and found.who is not Who.PARTNER else found.who.value,
            "next": f"{found.message}: {found.hint}" if found.hint else found.message,
            "scheduler": _scheduler(found.scheduler, start.now),
        }
    )
    show_steps(found.steps, start.now)
    click.echo()
    show_table(
        ["generation", "stage", "changes", "expires", "password", "held by"],
        [
            (g.number, g.label, ", ".join(g.changes), when(g.not_after, start.now), g.password, _holders(g))
            for g in found.generations
        ],
        empty=f"{account} has no generation yet: broker status {account} shows the next step",
    )
    if any(len(g.held_by) > len(g.copies) for g in found.generations):
        note(f"the consumers: broker lease list {account}")
    if found.canaries:
        show_table(
            ["canary", "generation", "at", "verdict"],
            [(t.number, t.generation, f"{t.at:%F %TZ}", t.verdict or "no answer") for t in found.canaries],
        )
    click.echo()
    show_table(
        ["when", "", "timeline"],
        [(f"{m.at:%F %H:%MZ}", "planned" if m.planned else "", m.message) for m in found.timeline],
    )
    show_obstacles(found.obstacles)
    for application in found.rejected:
        note(f"the partner rejected the client_id of {account}/{application}")
    if found.suspended:
        note(f"suspended since {found.suspended.at:%F %TZ}: {found.suspended.reason}; broker account resume {account}")


@command.verb("canary", example="broker rotation canary acme --generation 2")
@account_argument
@generation_option("the newest candidate, else the current one")
@reason_options
def canary(start: Start, account: AccountName, generation: int, force: bool, reason: str) -> None:
    """Send one harmless real request with a generation, and explain the partner's answer.

    --force ignores an earlier rejected login or quota, and sends an older password than the current one. Partners lock
    accounts after repeated failures: check first.
    """
    broker = start.broker
    forced = the_reason(force, reason)
    found = broker.account(account, Role.CANARY)
    number = (found.generation(generation) if generation else generation_to_try(found)).number
    if forced:
        broker.rotation.reset_breaker(account, forced)
    step(f"asking the partner with generation {number}")
    answer = broker.canary.try_out(account, number, reason=forced)
    if not wants_json():
        note(f"generation {number} of {account}: {answer.verdict.value}: {answer.verdict.message}")
    require_ok(account, number, answer)
    wrote_json(CanaryReport(account, number, answer.verdict, answer.detail))


@command.verb("promote", example="broker rotation promote acme")
@account_argument
@click.option(
    "--generation",
    type=click.IntRange(1),
    multiple=True,
    help="Which; else the newest candidate that no roll-back made. Twice: join two candidates into one first.",
)
@reason_options
def promote(start: Start, account: AccountName, generation: tuple[int, ...], force: bool, reason: str) -> None:
    """Try a candidate at the partner, and make it current if the partner accepts it.

    A candidate has the parts that it changes: a certificate, a password, a client_id. Two that the partner reissued
    together are joined by naming both, and tried as one. A generation that a roll-back displaced is promoted again by
    its number.

    A promotion always includes a canary. --force ignores an earlier rejected login or quota, and takes a certificate
    that ends before the current one.
    """
    broker = start.broker
    forced = the_reason(force, reason)
    if forced:
        broker.rotation.reset_breaker(account, forced)
    if len(generation) > 2:  # noqa: PLR2004  # said by the message
        raise InputError("--generation was given more than twice", hint="join two candidates, then the next")
    number = broker.rotation.join(account, *generation).number if len(generation) > 1 else sum(generation)
    step("asking the partner")
    promotion = broker.rotation.promote(account, number, reason=forced)
    done = f"generation {promotion.generation} of {account} is current"
    _show(promotion, done if promotion.changed else f"nothing to promote: {done}")


@command.verb("rollback", example="broker rotation rollback acme --force --reason 'partner is down'")
@account_argument
@generation_option("the one that the current one displaced")
@reason_options
def rollback(start: Start, account: AccountName, generation: int, force: bool, reason: str) -> None:
    """Make the previous generation current again. The displaced one is kept, and promoted again only by number.

    It brings back certificate and client_ids; if the password or the server's CAs have changed since, the new ones are
    used with them. The set is tried first; --force rolls back without a try.
    """
    forced = the_reason(force, reason)
    step("asking the partner")
    promotion = start.broker.rotation.roll_back(account, generation, untried_because=forced)
    done = "is current again" if promotion.changed else "was current already: nothing to do"
    _show(promotion, f"generation {promotion.generation} of {account} {done}")


@command.verb("reject", example="broker rotation reject acme --generation 3 --reason 'wrong subject'")
@account_argument
@click.option("--generation", type=click.IntRange(1), required=True, help="The candidate to withdraw.")
@reason_option
@yes_option
def reject(start: Start, account: AccountName, generation: int, reason: str, yes: bool) -> None:
    """Withdraw a candidate for good: its certificate cannot be imported again."""
    found = start.broker.account(account, Role.ROTATOR)
    answered = found.answered_only_by(found.generation(generation))
    if answered:
        require_consent(found, answered, yes=yes)
    changed = start.broker.rotation.reject(account, generation, reason)
    done = f"generation {generation} of {account} is rejected"
    show_done(done, changed=changed, account=account, generation=generation)


@command.verb("retire", example="broker rotation retire acme --generation 1")
@account_argument
@click.option("--generation", type=click.IntRange(1), required=True, help="A previous or rejected generation.")
@reason_options
def retire(start: Start, account: AccountName, generation: int, force: bool, reason: str) -> None:
    """End an overlap: stop issuing the generation, and destroy the secrets that only it uses.

    Refused with exit code 7 while consumers hold it, unless forced.
    """
    changed = start.broker.rotation.retire(account, generation, the_reason(force, reason))
    done = f"generation {generation} of {account} is retired"
    show_done(done, changed=changed, account=account, generation=generation)
    if changed:
        note("snapshots of Vault may still hold its key")


@command.verb("revoked", example="broker rotation revoked acme --generation 1")
@account_argument
@click.option("--generation", type=click.IntRange(1), required=True, help="Whose certificate is revoked.")
@click.option("--reason", default="", metavar="TEXT", help="Who confirmed it, for the evidence.")
def revoked(start: Start, account: AccountName, generation: int, reason: str) -> None:
    """Record that the partner no longer takes a certificate whose key others know: csr new --compromised.

    Refused while that certificate is current.
    """
    said = one_line(reason, "--reason")
    changed = start.broker.rotation.revoked(account, generation, said)
    done = f"the certificate of generation {generation} of {account} is confirmed dead"
    show_done(done, changed=changed, account=account, generation=generation)


@command.verb("returned", example="broker rotation returned acme --held-by 'nginx on web-1'")
@account_argument
@click.option("--held-by", required=True, metavar="TEXT", help="Who had the copy, as rotation status shows it.")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the evidence.")
def returned(start: Start, account: AccountName, held_by: str, reason: str) -> None:
    """Record that a copy of an imported key outside is gone. retire waits for such copies as for consumers."""
    said = one_line(reason, "--reason")
    start.broker.rotation.returned(account, held_by, said)
    show_done(f"{held_by} has no copy of a key of {account} any more", account=account, held_by=held_by)


@command.verb("run", example="broker rotation run --once")
@click.option("--once", is_flag=True, help="Sweep once and end: for cron, a systemd timer or a CronJob.")
@click.option("--dry-run", is_flag=True, help="Show what a sweep would do first for each account. Changes nothing.")
@click.option(
    "--health",
    default="127.0.0.1:8252",
    show_default=True,
    metavar="ADDRESS",
    help="Address of /livez, /readyz and /metrics, plain HTTP. Not with --once.",
)
def run(start: Start, once: bool, dry_run: bool, health: str) -> int:
    """Do what is due for every account: request, submit, try, promote, retire. Runs until a signal asks it to end.

    Sweeps now and each rotation.interval. Of several schedulers one sweeps at a time. A step that fails is tried again
    after five minutes, then twice as long each time; see broker rotation status. A renewal or promotion that is set to
    manual is left to people. With --once, exit code 6 says that something failed.
    """
    scheduling = start.broker.scheduling
    if once or dry_run:
        return _show_sweep(scheduling.sweeps.rehearse() if dry_run else scheduling.sweeps.sweep())
    start.suggest("log.level", "info")
    start.suggest("log.format", "json")
    scheduling.run(health, lambda at: note(f"listening on {at[0]} for /livez, /readyz and /metrics"))
    return 0


def _show_sweep(report: SweepReport) -> int:
    """Print a sweep; return the exit code."""
    code = REFUSED if report.failures else 0
    if wrote_json(report):
        return code
    show_table(
        ["account", "step", "result", "reason"],
        [(deed.account, deed.do, deed.result.value, deed.message) for deed in report.deeds],
        empty=f"nothing to do: {counted(report.accounts, 'account')}, {report.read} read",
    )
    for deed in report.deeds:
        again = f"; it is tried again after {deed.until:%F %TZ}" if deed.until else ""
        if deed.hint:
            note(f"hint: {deed.account or deed.do}: {deed.hint}{again}")
    return code


def _show(promotion: Promotion, done: str) -> None:
    if wrote_json(promotion):
        return
    note(done)
    if promotion.way_back and promotion.way_back is not Verdict.OK:
        note(f"warning: the partner answers {promotion.way_back.value} to the displaced one, so a roll-back would fail")


def _scheduler(found: SchedulerStatus | None, now: datetime) -> str:
    """Return who sweeps now, or when a sweep ended."""
    if found is None:
        return "no sweep is known"
    ended = f"the last sweep ended {at_time(found.last_end, now)}" if found.last_end else "no sweep has ended yet"
    if found.until is None:
        return ended
    lock = "its lock was over" if found.until <= now else "its lock ends"
    return f"{found.holder} sweeps since {found.since:%F %TZ}; {lock} {found.until:%F %TZ} if not renewed; {ended}"


def _holders(generation: GenerationReport) -> str:
    """Return how many consumers hold a generation, and who has copies of it."""
    consumers = len(generation.held_by) - len(generation.copies)
    return ", ".join([*([counted(consumers, "consumer")] if consumers else ()), *generation.copies])
