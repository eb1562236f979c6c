"""Import an account that exists: the owner of each thing, what will be done, and the rotator's part of it.

An import is other use-cases in a row: add the account, set its password, add applications, adopt the key as the open
request, receive the certificate as a reply, try the set and promote it. Each does nothing the second time, so that an
import that was killed is finished by the same command.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial

from msgspec import Struct, field

from broker.copies import replace
from broker.errors import InputError, RefusedError
from broker.model.account import Account
from broker.model.authentication import CLIENT_ID, LOGIN, PASSWORD
from broker.model.certificate import Spki
from broker.model.chain import Fact
from broker.model.changes.importing import adopted, copies_noted
from broker.model.changes.registering import added, secret_set
from broker.model.clock import Stamp
from broker.model.finding import Finding, FindingsError, Severity
from broker.model.generation import SigningRequest, key_ref
from broker.model.secret import Secret
from broker.model.stage import Stage
from broker.model.subject import Subject
from broker.partners.profile import Profile
from broker.pki import certificate_fields as fields
from broker.pki import csr
from broker.pki.csr import ParsedCsr
from broker.pki.gathered import Gathered
from broker.pki.lint import lint_csr, lint_subject
from broker.pki.material import FoundKey, choose_key
from broker.pki.reply import ReplyParts
from broker.rotation.receive import ImportOptions, Reply
from broker.rotation.registry import application_added
from broker.rotation.rotation import Rotation


class Wishes(Struct, frozen=True):
    """What a person asks for beside the files."""

    alias: str | None = None  # of a key, if there are several
    client_ids: Mapping[str, str] = field(default_factory=dict)  # by application; "": the one in the files
    held_by: tuple[str, ...] = ()  # who has copies outside
    shared_because: str = ""  # why the account may have a key that another account has
    options: ImportOptions = field(default_factory=ImportOptions)


class Row(Struct, frozen=True):
    """One thing that was found: where, and whose it is. No secret is in it."""

    what: str
    place: str
    subject: str = ""
    spki: str = ""
    fits: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None

    @property
    def validity(self) -> str:
        """First and last day, for people."""
        return f"{self.not_before:%F} to {self.not_after:%F}" if self.not_before and self.not_after else ""


class ImportPlan(Struct, frozen=True):
    """An import, before anything is stored. `steps` are those that are not done yet."""

    account: Account  # as it is stored, or will be
    findings: tuple[Finding, ...]
    password: Secret[str] | None
    client_ids: Mapping[str, str]
    key: FoundKey | None
    csr: str  # of the key
    facts: Mapping[str, Fact]  # about the key, for the evidence
    reply: ReplyParts | None  # all certificates
    wishes: Wishes
    steps: tuple[str, ...] = ()
    tries: bool = False  # whether the partner is asked

    @property
    def is_new(self) -> bool:
        """Whether the account is added."""
        return not self.account.head.number


def login_in(found: Gathered) -> str:
    """Return the login that was found: a text, else the common name of the certificate or the request; "" for none."""
    named = found.texts.get(LOGIN)
    return named[0].reveal() if named else next((subject.get("CN") for subject in _subjects(found)), "")


def subject_in(found: Gathered, profile: Profile) -> Subject:
    """Return the subject of the certificate, else of the request, in the partner's order; raise `InputError`."""
    subject = next(_subjects(found), None)
    if subject is None:
        raise InputError(
            "the account does not exist, and neither a certificate nor a signing request tells its subject",
            hint="add the account first: broker account add --help",
        )
    order = profile.subject.order
    place = {name: number for number, name in enumerate(order)}
    return Subject(tuple(sorted(subject.attributes, key=lambda pair: place.get(pair[0], len(order)))))


def _subjects(found: Gathered) -> Iterator[Subject]:
    ours = {key.spki for key in found.keys}
    leaves = sorted(found.leaves, key=lambda leaf: leaf.spki not in ours)
    yield from (fields.subject_of(leaf.certificate).subject for leaf in leaves)
    yield from (request.name.subject for request, _ in found.requests)


class Importing(Struct, frozen=True):
    """What is known before an import into `account`, which is new if it has no evidence yet."""

    account: Account
    others: Sequence[Account]
    profile: Profile
    found: Gathered
    wishes: Wishes

    def plan(self, stamp: Stamp) -> ImportPlan:
        """Return the plan; store nothing.

        The import is rehearsed on the account in memory, with the checks of the real one. Raises what those raise,
        `RefusedError` if another account has the key, `InputError` if it is not clear which key is meant.
        """
        self._require_login()
        key, password = self._key(), self.found.texts.get(PASSWORD)
        request = self._request_of(key.spki) if key else None
        certificates = tuple(c.certificate for c in self.found.certificates)
        draft = ImportPlan(
            account=self.account,
            findings=(*self.found.findings, *self._traps(request), *self._unused(key)),
            password=password[0] if password and not self.account.password else None,
            client_ids=self._client_ids(),
            key=key,
            csr=request.pem if request else self._built(key) if key else "",
            facts=self._facts(key) if key else {},
            reply=ReplyParts(certificates, (), ()) if certificates else None,
            wishes=self.wishes,
        )
        return self._rehearsed(draft, stamp)

    def _require_login(self) -> None:
        named, login = self.found.texts.get(LOGIN), self.account.login
        if named and named[0].reveal() != login:
            raise RefusedError(
                f"the login in {named[1]} is not that of {self.account.name}, which is {login}",
                hint="import it into the account of that login, or give the files of the set alone",
            )

    def _key(self) -> FoundKey | None:
        """Return the key to import: the one that a certificate or request is for, if there are several."""
        keys, alias = self.found.keys, self.wishes.alias
        if not keys and self.found.requests:
            place = self.found.requests[0][1]
            raise InputError(f"the key of the signing request in {place} is missing", hint="give it too: --key FILE")
        if not keys:
            return None
        fitting = [key for key in keys if self.found.certificates_of(key.spki) or self._request_of(key.spki)]
        key = choose_key(fitting if fitting and alias is None else keys, alias)
        leaves = self.found.leaves
        if leaves and not self.found.certificates_of(key.spki):
            listed = "; ".join(f"'{fields.subject_of(c.certificate)}' (SPKI {c.spki[:16]}…)" for c in leaves)
            raise RefusedError(
                f"no certificate here is for the key in {key.file} (SPKI {key.spki[:16]}…), but there is {listed}",
                hint="give the files of one set; a key without its certificate is imported alone",
            )
        return key

    def _request_of(self, spki: Spki) -> ParsedCsr | None:
        return next((request for request, _ in self.found.requests if request.spki == spki), None)

    def _built(self, key: FoundKey) -> str:
        """Return a CSR for a key that came without: the account's subject, as the partner's rules want it."""
        return csr.build(key.key, self.account.subject, self.profile.key)

    def _client_ids(self) -> Mapping[str, str]:
        found = self.found.client_ids
        missing = [application for application, given in self.wishes.client_ids.items() if not given]
        if missing and len(found) != 1:
            raise InputError(
                f"{len(found)} client_ids were found ({', '.join(found) or 'none'}), so none is taken",
                hint=" ".join(f"--client-id-for {application}=ID" for application in missing),
            )
        return {application: given or found[0] for application, given in self.wishes.client_ids.items()}

    def _facts(self, key: FoundKey) -> Mapping[str, Fact]:
        """Return what the evidence says of a key that others have too; raise `RefusedError` if that is not wanted."""
        sharing = [account.name for account in self.others if account.has_key(key.spki)]
        if not sharing or self.account.request_of(key.spki):
            return {}
        if not self.wishes.shared_because:
            raise RefusedError(
                f"the key in {key.file} is held by account {', '.join(sharing)}",
                hint=f"is {self.account.name} the right account? To import a copy: --shared-key --reason TEXT",
            )
        return {"shared_with": " ".join(sharing), "reason": self.wishes.shared_because}

    # what is shown

    def rows(self) -> Iterator[Row]:
        """Yield everything that was found."""
        found = self.found
        for key in found.keys:
            here = [f"certificate in {c.place}" for c in found.certificates_of(key.spki)] or ["no certificate here"]
            yield Row("key", key.file, key.subject, key.spki, (*here, *self._holders(key.spki)))
        leaves = found.leaves
        for c in found.certificates:
            what, subject = "certificate" if c in leaves else "CA", str(fields.subject_of(c.certificate))
            times = (c.certificate.not_valid_before_utc, c.certificate.not_valid_after_utc)
            yield Row(what, c.place, subject, c.spki, self._fits(c.spki), *times)
        for request, place in found.requests:
            yield Row("signing request", place, str(request.name), request.spki, self._fits(request.spki))
        for kind, (text, place) in found.texts.items():
            yield Row(kind, place, text.reveal() if kind == LOGIN else "")
        yield from (Row("client_id", value) for value in found.client_ids)

    def _fits(self, spki: Spki) -> tuple[str, ...]:
        keys = (f"key in {key.file}" for key in self.found.keys if key.spki == spki)
        return (*keys, *self._holders(spki))

    def _holders(self, spki: Spki) -> Iterator[str]:
        """Yield the requests and generations that have this key, of all accounts."""
        for account in (self.account, *self.others):
            for request in (r for r in account.requests if r.spki == spki):
                made = [g for g in account.generations if g.parts.key == request.key]
                stages = [f"generation {g.number}, {g.stage.value}" for g in made]
                yield "; ".join([f"{account.name}, signing request {request.number}, {request.state}", *stages])

    def _traps(self, request: ParsedCsr | None) -> Iterator[Finding]:
        """Yield what the partner's rules say of the subject and the CSR: as warnings, since both exist already."""
        rules, login = self.profile.subject, self.account.login
        found = lint_csr(request, rules, self.profile.key, login) if request else ()
        if not request and not self.account.head.number:
            found = lint_subject(self.account.subject, rules, login)
        yield from (replace(f, severity=Severity.WARNING) if f.severity is Severity.ERROR else f for f in found)

    def _unused(self, key: FoundKey | None) -> Iterator[Finding]:
        for other in self.found.keys:
            if key and other.spki != key.spki:
                yield Finding.warning(
                    "import.other-key", f"the key {other} is not imported", "import it into its account"
                )
        if self.account.password and PASSWORD in self.found.texts:
            message = f"{self.account.name} has a password, and the one that was found is not stored"
            yield Finding.note("import.password", message, f"to replace it: broker password set {self.account.name}")
        taken = self._client_ids().values()
        for client_id in self.found.client_ids:
            if client_id not in taken and not any(a.client_id == client_id for a in self.account.applications):
                hint = f"--client-id-for APPLICATION={client_id}"
                yield Finding.note("import.client-id", f"the client_id {client_id} is not taken", hint)

    # the rehearsal

    def _rehearsed(self, plan: ImportPlan, stamp: Stamp) -> ImportPlan:
        """Return `plan` with its steps, and the findings of the certificate."""
        account, steps, tries = plan.account, [], False
        for text, change in _changes(plan, stamp):
            after = change(account)
            steps += [text] if after != account else []
            account = after
        findings: Sequence[Finding] = ()
        if plan.reply:
            reply = Reply(plan.reply, plan.wishes.options, self.profile.subject)
            try:
                after = reply.admitted(account, stamp)
            except FindingsError as error:
                raise FindingsError(f"the set of {account.name}", _hinted(error.findings)) from None
            steps += ["verify and store the certificate"] if after != account else []
            account, findings = after, reply.findings
            is_candidate = reply.received(after).generation.stage is Stage.CANDIDATE
            tries = is_candidate and may_try(account, self.profile)
            steps += ["try the set at the partner, and make it current"] if tries else []
        return replace(plan, steps=tuple(steps), findings=(*plan.findings, *_hinted(findings)), tries=tries)


def _hinted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings of a reply with hints for this command: the account may not exist yet."""
    hint = "if it has another, name its CA: --server-ca FILE"
    return tuple(replace(f, hint=hint) if f.code == "reply.server-ca" else f for f in findings)


def may_try(account: Account, profile: Profile) -> bool:
    """Return whether a canary of `account` has a client_id, if the partner wants one."""
    return CLIENT_ID not in profile.authentication.needs or any(a.client_id for a in account.applications)


def _changes(plan: ImportPlan, stamp: Stamp) -> Iterator[tuple[str, Callable[[Account], Account]]]:
    """Yield each step before the certificate, in words, and its effect on the account."""
    account, key, held_by = plan.account, plan.key, plan.wishes.held_by
    if plan.is_new:
        yield f"add account {account.name}: login {account.login} at {account.base_url}", partial(added, by=stamp.by)
    if plan.password:
        yield "store the password", lambda a: secret_set(a, PASSWORD, 1, stamp)
    for name, client_id in plan.client_ids.items():
        change = partial(application_added, application=name, client_id=client_id, stamp=stamp)
        yield f"set the client_id of {account.name}/{name}", change
    if key:
        yield f"adopt the key in {key.file}, marked as known outside", lambda a: _adopted(plan, key, a, stamp)
    if held_by:
        yield f"note that copies are held by {', '.join(held_by)}", lambda a: noted(a, plan, stamp)


def _adopted(plan: ImportPlan, key: FoundKey, account: Account, stamp: Stamp) -> Account:
    slot = account.next_request
    request = SigningRequest(slot, key_ref(slot), key.spki, plan.csr, stamp.at, imported=True)
    return adopted(account, request, by=stamp.by, **plan.facts)


def noted(account: Account, plan: ImportPlan, stamp: Stamp) -> Account:
    """Return `account` with the copies noted that people said, of the key in the plan or the last imported one."""
    of_key = account.request_of(plan.key.spki) if plan.key else None
    request = of_key or next((r for r in reversed(account.requests) if r.imported), None)
    if request is None:
        raise InputError(
            f"{account.name} has no key that was made outside", hint="--held-by goes with the import of the key"
        )
    return copies_noted(account, request.number, plan.wishes.held_by, stamp)


def adopt(rotation: Rotation, plan: ImportPlan, key: FoundKey) -> None:
    """Store the key, then name it in the account as its open request: two writes, in this order, as for a new key.

    After a kill between the two, the next run finds the key in its slot. Raise `ConflictError` if another request was
    made meanwhile.
    """
    name = plan.account.name
    with rotation.settling(name):
        seen = rotation.seen(name)
        if seen.request_of(key.spki):
            return
        now = rotation.clock()  # a wrong clock is refused here, before a key is stored
        keep = partial(rotation.keys.keep, name, key=key.key)
        slot, (ref, spki) = rotation.in_free_slot(name, seen.next_request, keep)
        request = SigningRequest(slot, ref, spki, plan.csr, now, imported=True)
        rotation.amend(name, lambda account, stamp: adopted(account, request, by=stamp.by, **plan.facts))
