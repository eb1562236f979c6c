"""`broker rotation rehearse`: the next renewal of an account at the stand-in, with the clock moved.

The copy has what is public of the account; keys, passwords and client_ids are made up. It lives in a vault and at a
stand-in of its own, in a temporary directory, so nothing real is touched.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

from partner_standin import Standin
from partner_standin.csr import RejectedError

from broker.compose.graph import Broker, Wiring
from broker.config import resolve
from broker.copies import replace
from broker.embedded.config import Options
from broker.embedded.server import stop
from broker.embedded.up import up
from broker.errors import BrokerError
from broker.model.account import Account
from broker.model.authentication import CLIENT_ID, LOGIN, PASSWORD
from broker.model.changes.registering import AccountSettings
from broker.model.channel import BY_MACHINE
from broker.model.due import DueDate, lead_time
from broker.model.duration import duration_text
from broker.model.finding import Finding, has_errors
from broker.model.generation import RenewalMode, SigningRequest, Submission
from broker.model.maintenance import Maintenance
from broker.model.names import AccountName
from broker.model.notice_rules import happening
from broker.model.plan import AccountPlan, Action, Step
from broker.model.rotation_record import RotationRecord
from broker.model.secret import Secret
from broker.partners import catalogue
from broker.partners.planned import channel_of, plan_of
from broker.partners.profile import Profile
from broker.people.eml import csr_mail, draft
from broker.pki import csr
from broker.pki.lint import lint_csr, lint_subject
from broker.pki.reply import read_files
from broker.rotation.receive import ImportOptions
from broker.scheduling.decision import Do
from broker.scheduling.report import Result
from broker.scheduling.sweep import Outside, Sweeps

_FIRST: Final = timedelta(days=365)  # the lifetime of a certificate, if the account has none and the profile says none
_BACK: Final = timedelta(days=390)  # the stand-in's CAs are a little older
_SCHEDULER, _TEAM, _PARTNER = "scheduler", "team", "partner"


@dataclass(frozen=True, slots=True)
class RehearsedStep:
    """A step, when it happened by the moved clock, who does it, and what a person would type."""

    at: datetime
    who: str  # "scheduler", "team" or "partner"
    message: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The report. It is `complete` if the old key was destroyed at the end."""

    account: AccountName
    at: datetime
    complete: bool
    steps: tuple[RehearsedStep, ...]
    findings: tuple[Finding, ...]

    @property
    def success(self) -> bool:
        """Whether the renewal would succeed, without an error."""
        return self.complete and not has_errors(self.findings)


@dataclass
class _Clock:
    now: datetime

    def __call__(self) -> datetime:
        return self.now


def rehearse(account: Account, profile: Profile, maintenance: Maintenance, now: datetime) -> Rehearsal:
    """Go through the next renewal of `account`. Nothing of it is changed, and its partner is not asked."""
    plan = plan_of(account, profile, now, maintenance)
    findings, steps = list(_findings(account, profile, plan)), list[RehearsedStep]()
    complete = False
    try:
        with _stage(account, profile, plan, now) as stage:
            walk = _Walk(stage, account, profile, plan, maintenance, findings)
            for step in walk.steps(now):
                steps += walk.with_notices(step)
            steps += walk.notices
            complete = not stage.kept()
    except BrokerError as error:
        findings.append(Finding.error("rehearsal.failed", error.message, error.hint))
    except RejectedError as error:
        reasons = "; ".join(reason.message for reason in error.reasons)
        hint = "the stand-in's desk checks as Stellantis does; another partner may accept it"
        findings.append(Finding.error("rehearsal.desk", f"the desk rejects the request: {reasons}", hint))
    return Rehearsal(account.name, now, complete, tuple(steps), tuple(dict.fromkeys(findings)))


def _findings(account: Account, profile: Profile, plan: AccountPlan) -> Iterator[Finding]:
    """Yield what will go wrong, and can be seen without a rehearsal."""
    name, due = account.name, plan.due
    yield from lint_subject(account.subject, profile.subject, account.login)
    if not (account.contacts.partner or profile.submission.to):
        message = "nobody at the partner gets the request: neither account nor profile has an address"
        yield Finding.error("rehearsal.contact", message, f"broker account set {name} --contact ADDRESS")
    if not account.contacts.team:
        message = "nobody of the team is notified"
        yield Finding.warning("rehearsal.team", message, f"broker account set {name} --team ADDRESS")
    if not account.applications:
        yield Finding.error("rehearsal.application", "it has no application", f"broker app add {name}/APPLICATION")
    if account.renewal is RenewalMode.DISABLED:
        hint = f"broker account set {name} --renewal auto"
        yield Finding.error("rehearsal.disabled", "renewal is disabled: nobody starts it", hint)
    if due and due.renewal.safety + due.lead.time > due.not_after - due.not_before:
        needed, lifetime = duration_text(due.renewal.safety + due.lead.time), due.not_after - due.not_before
        message = f"margin and lead time take {needed}, longer than the lifetime of {duration_text(lifetime)}"
        hint = f"a longer lifetime, a faster partner, or: broker account set {name} --renew-before 50%"
        yield Finding.error("rehearsal.lead-time", message, hint)
    if profile.renewal.lifetime is None and due is None:
        message = f"the lifetime of certificates is unknown: {duration_text(_FIRST)} is assumed"
        yield Finding.note("rehearsal.lifetime", message, f"set it in a profile: broker partner show {profile.name}")
    for warning in plan.warnings:
        yield Finding.warning("rehearsal.plan", warning, f"broker rotation plan {name}")


@dataclass
class _Stage:
    """The copy of the account, in a vault and at a stand-in of its own."""

    name: AccountName
    broker: Broker
    standin: Standin
    clock: _Clock
    lifetime: timedelta
    application: str
    first: int = 0  # the generation that is replaced; 0: there is none

    def signed(self, request: SigningRequest, lifetime: timedelta) -> bytes:
        """Return the desk's reply, signed now."""
        options = {"lifetime": f"{lifetime.total_seconds():.0f}", "application": self.application}
        return self.standin.sign(request.csr, **options).zip()

    def received(self, reply: bytes) -> int:
        """Import a reply, with the made-up CAs accepted; return the number of the candidate."""
        described = self.standin.described()
        accept = str(described["issuing_ca_sha256"]), str(described["server_ca_sha256"])
        options = ImportOptions(accept)
        return self.broker.rotation.receive(self.name, read_files({"reply.zip": reply}), options).generation.number

    def kept(self) -> bool:
        """Return whether a secret of the replaced generation is still there."""
        account = self.broker.account(self.name)
        old = [g.parts.key for g in account.generations if g.number == self.first]
        return bool(account.keys_in_use & set(old) or account.doomed_keys or account.outbox)


@contextmanager
def _stage(account: Account, profile: Profile, plan: AccountPlan, now: datetime) -> Iterator[_Stage]:
    """Yield the copy, with a certificate of the same dates if the account has one."""
    due = plan.due
    begin = max(due.not_before, now - _BACK) if due else now
    clock, password = _Clock(min(begin, now)), secrets.token_urlsafe(12)
    with tempfile.TemporaryDirectory(prefix="broker-rehearsal-") as directory, ExitStack() as stack:
        # OpenSSL's clock cannot be moved: the stand-in judges the dates of certificates itself
        faults = ["certificate-json=deserved"]
        logins = {account.login: password}
        standin = Standin(Path(directory) / "partner", accounts=logins, faults=faults, clock=clock)
        stack.enter_context(standin)
        home = Path(directory) / "vault"
        up(home, Options(tied=True))
        stack.callback(stop, home)
        file = Path(directory) / "broker.toml"
        file.write_text("version = 1\n")  # without it, that of the real Vault would be found
        flags = {"embedded.directory": str(home)}
        config = resolve(flags=flags, environment={}, file=file, defaults={"actor": "rehearsal"})
        broker = Broker(config, {}, wiring=Wiring(clock=clock))
        stack.callback(broker.close)
        lifetime = profile.renewal.lifetime or (due.not_after - due.not_before if due else _FIRST)
        application = account.applications[0].name if account.applications else "rehearsal"
        stage = _Stage(account.name, broker, standin, clock, lifetime, application)
        _copy(stage, account, profile, password, due)
        if due:
            request = broker.rotation.draft(account.name)
            stage.first = stage.received(stage.signed(request, due.not_after - clock.now))
            broker.rotation.promote(account.name, stage.first)
        clock.now = max(now, clock.now)
        yield stage


def _copy(stage: _Stage, account: Account, profile: Profile, password: str, due: DueDate | None) -> None:
    broker, standin, name = stage.broker, stage.standin, account.name
    if profile.name not in catalogue.names():
        broker.add_profile(profile)
    public = Account(
        name,
        account.profile,
        account.environment,
        account.login,
        standin.api_url,
        account.subject,
        stage.clock(),
        account.contacts,
    )
    broker.registry.add_account(public)
    before = duration_text(due.not_after - due.at) if due else account.renew_before  # the copy has learned no lead time
    settings = AccountSettings(
        renew_before=before, renewal=account.renewal, promotion=account.promotion, submit_via=account.submit_via
    )
    broker.registry.set_account(name, settings)
    for needed in profile.authentication.needs - {LOGIN, CLIENT_ID}:
        secret = password if needed == PASSWORD else secrets.token_urlsafe(12)
        broker.registry.set_secret(name, Secret(secret), needed)
    for application in [a.name for a in account.applications] or [stage.application]:
        broker.registry.add_application(name, application, standin.registry.client_id(account.login, application))


@dataclass
class _Walk:
    """The steps of the renewal, each done when it is shown: by a sweep, or else as a person does it."""

    stage: _Stage
    real: Account
    profile: Profile
    plan: AccountPlan
    maintenance: Maintenance
    findings: list[Finding] = field(default_factory=list)
    swept: set[str] = field(default_factory=set)  # what sweeps have done
    events: set[str] = field(default_factory=set)  # that the team would have been notified of
    notices: list[RehearsedStep] = field(default_factory=list)  # of the last sweep

    def steps(self, now: datetime) -> Iterator[RehearsedStep]:
        """Do one step after the other, and yield each."""
        stage, name, due, rotation = self.stage, self.real.name, self.plan.due, self.stage.broker.rotation
        stage.clock.now = max(now, due.at) if due else now
        self._move_to(Action.RENEW)
        who = self._done_by(Do.DRAFT, lambda: rotation.draft(name))
        request = rotation.draft(name)  # the one that there is
        self.findings += lint_csr(
            csr.parse(request.csr.encode()), self.profile.subject, self.profile.key, self.real.login
        )
        because = f"renewal is due: {due.because}" if due else "it has no certificate yet"
        yield self._step(who, f"{because}; a new key and its request", f"broker csr new {name}")
        yield self._sent(request)
        lead = lead_time(self.real, self.profile.renewal.lead_time).time
        stage.clock.now += lead
        reply = stage.signed(request, stage.lifetime)
        yield self._step(_PARTNER, f"the desk signs it, after a lead time of {duration_text(lead)}")
        number = stage.received(reply)
        message = f"the reply is imported: generation {number} is a candidate"
        yield self._step(_TEAM, message, f"broker cert import {name} FILE --accept-ca SHA256")
        yield self._promoted(number)
        if stage.first:
            yield from self._retired()

    def with_notices(self, step: RehearsedStep) -> list[RehearsedStep]:
        """Return `step` after the notices of the last sweep, which has first done all that is the scheduler's."""
        if step.who == _SCHEDULER and all(notice.at == step.at for notice in self.notices):
            return [step]
        notices, self.notices = self.notices, []
        return [*notices, step]

    def _done_by(self, do: Do, by_hand: Callable[[], object]) -> str:
        """Sweep, have a person do it if no sweep has; return who did it."""
        report = self.sweeps.sweep()
        self.swept |= {deed.do for deed in report.deeds if deed.result is Result.DONE}
        if do.value in self.swept:
            return _SCHEDULER
        by_hand()
        return _TEAM

    @cached_property
    def sweeps(self) -> Sweeps:
        """Sweeps over the copy, by the real windows. Nothing leaves them: no mail, notice or hook."""
        outside = Outside(self._by_machine, _nothing, self._notify, lambda *_: iter(()))
        return replace(self.stage.broker.scheduling.sweeps, outside=outside, plan=self._planned)

    def _notify(self, plans: Sequence[AccountPlan], _: object) -> None:
        """Note the event that the team would be notified of, once."""
        account, team = self.stage.broker.account(self.real.name), ", ".join(self.real.contacts.team)
        for plan in plans if team else ():
            found = happening(plan, account, RotationRecord(), self.stage.clock())
            if found and found.event not in self.events:
                self.events.add(found.event)
                kind, message = "an alert" if found.must_act else "the day's digest", found.message
                if plan.due and self.plan.due:  # the copy has the due date as a setting
                    message = message.replace(plan.due.because, self.plan.due.because)
                self.notices.append(self._step(_SCHEDULER, f"{kind} to {team}: {message}"))

    def _planned(self, account: Account, now: datetime) -> AccountPlan:
        return plan_of(account, self.profile, now, self.maintenance)

    def _move_to(self, action: Action) -> Step | None:
        """Move the clock to a step of the copy's plan, and return it; None if there is none."""
        clock = self.stage.clock
        plan = self._planned(self.stage.broker.account(self.real.name), clock())
        step = next((s for s in plan.steps if s.action is action), None)
        clock.now = max(clock.now, step.at) if step and step.at else clock.now
        return step

    def _step(self, who: str, message: str, command: str = "") -> RehearsedStep:
        return RehearsedStep(self.stage.clock(), who, message, command)

    def _sent(self, request: SigningRequest) -> RehearsedStep:
        name, rotation = self.real.name, self.stage.broker.rotation
        who = self._done_by(Do.SUBMIT, lambda: rotation.submit(name, request.number, self._mailed(request)))
        to = self._mailed(request).to or "nobody: there is no address"
        return self._step(who, f"the request goes to {to}", f"broker csr submit {name} --out {name}.eml")

    def _by_machine(self, account: Account, request: SigningRequest) -> Submission | None:
        return self._mailed(request) if channel_of(account, self.profile) in BY_MACHINE else None

    def _mailed(self, request: SigningRequest) -> Submission:
        """Make the mail, and return a record that it was sent; it is not."""
        now = self.stage.clock()
        mail = csr_mail(self.stage.broker.account(self.real.name), request, self.profile, (), now)
        if mail.to:
            draft(mail, self.profile.submission)
        return Submission(now, "rehearsal", ", ".join(mail.to))

    def _promoted(self, number: int) -> RehearsedStep:
        stage, name, due = self.stage, self.real.name, self.plan.due
        step = self._move_to(Action.PROMOTE)
        if due and stage.clock.now >= due.not_after:
            message = f"the new certificate would be current on {stage.clock.now:%F}, after the old one ends on "
            hint = f"renew earlier: broker account set {name} --renew-before 50%; broker rotation plan {name} shows why"
            self.findings.append(Finding.error("rehearsal.late", f"{message}{due.not_after:%F}", hint))
        who = self._done_by(Do.PROMOTE, lambda: stage.broker.rotation.promote(name, number))
        window = f", {step.because}" if step else ""
        return self._step(who, f"the partner accepts it, and it is current{window}", f"broker rotation promote {name}")

    def _retired(self) -> Iterator[RehearsedStep]:
        stage, name = self.stage, self.real.name
        step = self._move_to(Action.RETIRE)
        if step is None or step.at is None:
            message = f"the old key is never destroyed: {step.because if step else 'no step retires it'}"
            hint = "change [rotation.windows] or [rotation.freezes] in broker.toml"
            self.findings.append(Finding.error("rehearsal.window", message, hint))
            return
        who = self._done_by(Do.RETIRE, lambda: stage.broker.rotation.retire(name, stage.first))
        message = f"the overlap is over: generation {stage.first} is retired, and its key destroyed"
        yield self._step(who, message, f"broker rotation retire {name} --generation {stage.first}")


def _nothing(*_: object) -> None:
    pass
