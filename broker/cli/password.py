"""`broker password`: the partner's password."""

import sys

import click
from msgspec.structs import asdict

from broker.cli.noun import Noun
from broker.cli.options import account_argument, one_line, read_password, the_reason
from broker.cli.output import note, show_done, show_table, wrote_json
from broker.cli.start import Start
from broker.errors import ConflictError, InputError
from broker.model.account import Account
from broker.model.names import AccountName
from broker.model.password_rotation import BY_HAND, PasswordRotation, PasswordStep, StepDone
from broker.model.redactor import Redactor
from broker.model.role import Role
from broker.telemetry import log


@click.group("password", cls=Noun, epilog="Example: broker password set acme")
def command() -> None:
    """Set the partner's password: typed or read from a file, never shown."""


@command.verb("set", example="broker password set acme --password-file - < password.txt")
@account_argument
@click.option("--password-file", default="", metavar="PATH|-", help="Read it from a file or standard input.")
def set_(start: Start, account: AccountName, password_file: str) -> None:
    """Store a new password. If a generation is current, this creates a candidate with the new password.

    Consumers keep the old password until the candidate is promoted. The same password again counts as new, because
    this role cannot read stored passwords.
    """
    broker = start.broker
    broker.account(account, Role.OPERATOR)  # before the prompt
    password = read_password(password_file)
    log.hide(Redactor([password]).redact)
    after = broker.registry.set_secret(account, password)
    using = next((g.number for g in after.candidates if g.parts.password == after.password), None)
    done = f"password {after.password} of {account} is stored"
    show_done(done, account=account, password=after.password, candidate=using)
    if using:
        note(f"candidate {using} uses it; next: broker rotation promote {account}")


@command.verb("rotate", example="broker password rotate acme --done asked --note 'mail to the desk'")
@account_argument
@click.option("--done", type=click.Choice([step.value for step in BY_HAND]), help="Record that this step is done.")
@click.option("--note", "remark", default="", metavar="TEXT", help="With --done: a remark, for the evidence.")
@click.option("--abort", is_flag=True, help="End the rotation, and reject its candidate (requires --reason).")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the evidence.")
def rotate(start: Start, account: AccountName, done: str | None, remark: str, abort: bool, reason: str) -> None:
    """Change the password at the partner, step by step: begin, or go on with what is under way, and show the steps.

    Each step is kept in Vault with who did it and when, so that anybody may go on from any host. On a terminal, it asks
    for the next one. The steps stored, tried and promoted are noted by password set and rotation promote.
    """
    because, registry = the_reason(abort, reason, "--abort"), start.broker.registry
    if abort and done:
        raise InputError("--abort cannot be combined with --done", hint="use one of them")
    if remark and not done:
        raise InputError("--note requires --done", hint="add --done STEP, or leave --note out")
    said = one_line(remark, "--note")
    if abort:
        registry.abort_password_rotation(account, because)
        show_done(f"the password rotation of {account} is aborted", account=account)
    elif done:
        _show_rotation(registry.confirm_password_step(account, PasswordStep(done), said))
    else:
        _show_rotation(_asked_for(start, registry.rotate_password(account)))


def _asked_for(start: Start, account: Account) -> Account:
    """On a terminal, ask for each step that people do, until one is not done."""
    registry = start.broker.registry
    while sys.stdin.isatty() and account.password_rotation:
        step, name = account.password_rotation.next, account.name
        if step is PasswordStep.STORED and click.confirm("Store the new password now?", err=True):
            password = read_password("")
            log.hide(Redactor([password]).redact)
            account = _stored(registry.set_secret(name, password))
        elif step.by_hand and click.confirm(f"{step.value}: {step.meaning}. Is this done?", err=True):
            account = registry.confirm_password_step(name, step, "")
        else:
            break
    return account


def _stored(account: Account) -> Account:
    """Return `account` with a new password. Raise `ConflictError` if somebody ended the rotation during the prompt."""
    if account.password_rotation:
        return account
    raise ConflictError(
        f"password {account.password} of {account.name} is stored, but the password rotation was ended meanwhile",
        hint=f"broker status {account.name} shows its next step",
    )


def _show_rotation(account: Account) -> None:
    rotation, name = account.password_rotation, account.name
    if rotation is None:
        show_done(f"the password of {name} is rotated, and the old one is dead", account=name, steps=(), next=None)
        return
    done = [(step, rotation.done(step) or StepDone(step, None, "")) for step in PasswordStep]
    steps = [asdict(one) | {"meaning": step.meaning} for step, one in done]
    hint = _next_command(account, rotation)
    if wrote_json({"account": name, "old": rotation.old, "steps": steps, "next": rotation.next, "hint": hint}):
        return
    rows = [(step.value, step.meaning, one.at and f"{one.at:%F %TZ}", one.by, one.note) for step, one in done]
    show_table(["step", "meaning", "done", "by", "note"], rows)
    note(f"next: {hint}")


def _next_command(account: Account, rotation: PasswordRotation) -> str:
    if rotation.next.by_hand:
        return f"broker password rotate {account.name} --done {rotation.next.value}"
    using = next((g.number for g in account.candidates if g.parts.password > rotation.old), None)
    if using is None:
        return f"broker password set {account.name}"
    return f"broker rotation promote {account.name} --generation {using}"
