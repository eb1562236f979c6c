"""Import a reply of the partner. It is untrusted until it fits a key of ours and a CA that a person accepted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec import Struct

from broker.errors import BrokerError, RefusedError
from broker.model.account import Account
from broker.model.certificate import CaSet, Certificate
from broker.model.changes.registering import application_set, ca_accepted, trust_set
from broker.model.changes.requesting import answered, finding_accepted
from broker.model.clock import Stamp
from broker.model.finding import Finding, FindingsError, Severity, refuse_errors
from broker.model.fingerprint import format_fingerprint, parse_fingerprint
from broker.model.generation import Generation, SigningRequest
from broker.model.stage import Stage
from broker.model.subject import SubjectRules
from broker.pki import csr
from broker.pki.certificate_fields import fingerprint_of
from broker.pki.certificates import ca_set, describe, load
from broker.pki.chain import paths, unverifiable
from broker.pki.reply import ReplyParts
from broker.pki.verification import ACCEPTABLE, Expected, best_path, verify_certificate
from broker.rotation.ports import Others


class LateReplyError(RefusedError):
    """The reply answers a closed request, which is named, so that a person knows which mail it was."""

    def __init__(self, account: Account, request: SigningRequest) -> None:
        name, why = account.name, request.closed.value if request.closed else "open"
        numbers = [g.number for g in account.generations if g.parts.key == request.key and g.stage.living]
        key = f"generation {numbers[-1]} has its key and another certificate" if numbers else "its key is destroyed"
        super().__init__(
            f"this answers signing request {request.number} of {name}, which was {why}: {key}",
            hint=f"broker csr {'show' if account.open_request else 'new'} {name} prints the request to have signed",
        )


class ImportOptions(Struct, frozen=True):
    """Options of an import."""

    accept: Sequence[str] = ()  # SHA-256 fingerprints of CAs in the reply
    server_ca: bytes = b""  # PEM or DER: CAs that verify the partner's server, in place of those in the reply
    client_id_for: str = ""  # an application's name
    client_id: str = ""  # if the reply names several
    findings: Sequence[str] = ()  # codes of `ACCEPTABLE` that a person accepts
    reason: str = ""  # of the acceptance, for the evidence
    typed: str = ""  # the command, for a hint that adds to it

    def command(self, account: Account) -> str:
        """Return the command to add an option to."""
        return self.typed or f"broker cert import {account.name} FILE"


class Received(Struct, frozen=True):
    """An imported reply."""

    account: Account
    generation: Generation
    findings: tuple[Finding, ...]
    client_ids: tuple[str, ...]  # in the reply; only set on request


@dataclass(slots=True)
class Reply:
    """A reply that is being imported into an account."""

    parts: ReplyParts
    options: ImportOptions
    rules: SubjectRules
    findings: tuple[Finding, ...] = ()

    def admitted(self, account: Account, stamp: Stamp) -> Account:
        """Return the account with a candidate made from the reply; unchanged if it has that already."""
        parts, options = self.parts, self.options
        if not _answers_open(account, parts) and _known(account, parts):
            _refuse_news(account, options)
            return _with_client_id(account, parts, options, stamp)
        request, before = _fitting(account, parts), account
        self.parts = _news(account, parts)
        wanted = [parts.accepted(fingerprint) for fingerprint in options.accept]
        pinned = [account.ca_set(account.issuing)] if account.issuing else []
        certificate = self._certificate(request, [*wanted, *pinned], stamp)
        issuing, question = [a for a in wanted if _chains(certificate, parts, a)], None
        if issuing or any(_chains(certificate, parts, a) for a in pinned):
            account = _with_authorities(account, wanted, issuing, options, stamp)
            authorities = account.ca_set(account.issuing) if account.issuing else None
        else:
            question = _question(account, certificate, self, wanted)
            issuer = parts.issuer_of(certificate)
            authorities = parts.accepted(issuer.fingerprint) if issuer else None  # judged as if it were accepted
            certificate = self._certificate(request, [authorities] if authorities else [], stamp)
        requested = csr.parse(request.csr.encode()).name.subject
        expected = Expected(self.rules, account.login, authorities, request.spki, requested)
        found = [f for f in verify_certificate(certificate, expected, stamp.at) if f.code != "certificate.unpinned"]
        found += _assumed(before, account, options)
        try:
            account = _with_client_id(account, parts, options, stamp)
        except RefusedError as error:
            found.append(Finding.error("reply.client-id", error.message, error.hint))
        judged = [_weighed(f, account, options) for f in found]
        self.findings = (*parts.findings, *judged, *_open(account, question))
        refuse_errors(f"the reply for {account.name}", self.findings)
        taken = [f.code for f, weighed in zip(found, judged, strict=True) if f.severity is not weighed.severity]
        for code in dict.fromkeys(taken):
            account = finding_accepted(account, certificate, code, options.reason, stamp)
        return answered(account, request.number, certificate, stamp)

    def refuse_for_other(self, account: Account, others: Others) -> None:
        """Raise `RefusedError` with the name of the account that the reply answers, if it is none of `account`."""
        if any(self.parts.holds(request.spki) for request in account.requests):
            return
        for other in others():
            for request in other.requests:
                if self.parts.holds(request.spki):
                    raise RefusedError(
                        f"this reply is not for {account.name}: it answers signing request {request.number} of "
                        f"{other.name}",
                        hint=f"broker cert import {other.name} FILE",
                    )

    def _certificate(self, request: SigningRequest, trusted: Sequence[CaSet], stamp: Stamp) -> Certificate:
        """Return the certificate for the request, with its best path to a trusted CA."""
        cas = [ca for one in trusted for ca in load(one.pem)]
        return self.parts.for_spki(request.spki, partial(best_path, trusted=cas, now=stamp.at))

    def received(self, after: Account) -> Received:
        """Return the result; raise `RefusedError` if the candidate is gone already."""
        generation = _known(after, self.parts)
        if generation is None:
            raise RefusedError(
                f"the reply for {after.name} was stored, and overtaken immediately",
                hint=f"broker account show {after.name}",
            )
        findings = (*self.findings, *_unclaimed(after, self.parts.client_ids), *_shared(after, self.options))
        return Received(after, generation, findings, self.parts.client_ids)


def judged(
    account: Account, parts: ReplyParts, options: ImportOptions, rules: SubjectRules, stamp: Stamp
) -> tuple[Finding, ...]:
    """Return the findings of importing a reply into `account`, without storing anything."""
    reply = Reply(parts, options, rules)
    try:
        reply.admitted(account, stamp)
    except FindingsError as error:
        return error.findings
    except BrokerError as error:
        return (Finding.error("reply.refused", error.message, error.hint),)
    return reply.findings


def _weighed(finding: Finding, account: Account, options: ImportOptions) -> Finding:
    """Return a warning in place of an error that a person accepts; an error that one may accept says how."""
    if finding.severity is not Severity.ERROR or finding.code not in ACCEPTABLE:
        return finding
    if finding.code in options.findings:
        return Finding.warning(finding.code, f"{finding.message}: accepted", "the canary shows whether it works")
    command = options.command(account)
    how = f"if the partner confirms that its server takes it: {command} --accept {finding.code} --reason TEXT"
    return Finding.error(finding.code, finding.message, f"{finding.hint}; {how}")


def _unclaimed(account: Account, client_ids: Sequence[str]) -> Iterator[Finding]:
    """Yield each client_id in the reply that no application has, and the commands that set it."""
    lacking = [a for a in account.applications if not a.client_id]
    stored = "".join(f"; {account.name}/{a.name} has {a.client_id or 'none'}" for a in account.applications)
    known = {*account.client_ids.values(), *(i for c in account.candidates for i in c.parts.client_ids.values())}
    for client_id in client_ids:
        if client_id in known:
            continue
        message = f"the reply names the client_id {client_id}, which no application has{stored}"
        ways = [_set_command(account, a.name, client_id) for a in lacking or account.applications]
        hint = " or ".join(ways) or f"broker app add {account.name}/APPLICATION --client-id {client_id}"
        severity = Severity.NOTE if lacking else Severity.WARNING
        yield Finding("reply.client-id", severity, message, f"if it is right: {hint}")


def _shared(account: Account, options: ImportOptions) -> Iterator[Finding]:
    """Yield a warning for each other application with the client_id that was taken."""
    for other in account.sharing(account.application(options.client_id_for)) if options.client_id_for else ():
        message = f"{account.name}/{options.client_id_for} and {account.name}/{other} have the same client_id"
        hint = f"ask the partner which of them has it; then: {_set_command(account, other, 'ID')}"
        yield Finding.warning("reply.client-id-shared", message, hint)


def _assumed(before: Account, after: Account, options: ImportOptions) -> Iterator[Finding]:
    """Yield a note if the issuing CA verifies the partner's server only because no other CA was named."""
    if before.trust is None and after.trust == after.issuing and not options.server_ca:
        message = "no CA of the partner's server was named, so the issuing CA verifies the server too"
        yield Finding.note("reply.server-ca", message, "if it has another, name it with --server-ca FILE")


def _answers_open(account: Account, parts: ReplyParts) -> bool:
    return account.open_request is not None and _news(account, parts).holds(account.open_request.spki)


def _news(account: Account, parts: ReplyParts) -> ReplyParts:
    """Return the reply without the certificates of our generations: the open request may have a key of theirs."""
    return parts.without({g.parts.certificate for g in account.generations})


def _known(account: Account, parts: ReplyParts) -> Generation | None:
    """Return the newest generation with the reply's certificate, one that is of use before others.

    Partners send older certificates along: the one that was received last counts.
    """
    refs = {fingerprint_of(c) for c in parts.certificates}
    received = next((c.ref for c in reversed(account.certificates) if c.ref in refs), None)
    made = [g for g in account.generations if received and g.parts.certificate == received]
    return max(made, key=lambda g: (g.stage is Stage.CANDIDATE or g.stage.deliverable, g.number), default=None)


def _refuse_news(account: Account, options: ImportOptions) -> None:
    """Raise `RefusedError` if the options name CAs for a reply that is known, unless they are pinned already."""
    issuing, trust = _pinned(account)
    accepted = {parse_fingerprint(text) for text in options.accept}
    server = set(ca_set(options.server_ca).fingerprints) if options.server_ca else trust
    if accepted <= issuing | trust and server <= trust:
        return
    raise RefusedError(
        f"{account.name} has this certificate already, so CAs cannot be accepted with it again: nothing was changed",
        hint="leave out --accept-ca and --server-ca; "
        f"another CA of the partner's server: broker trust set {account.name} FILE --accept-ca SHA256",
    )


def _fitting(account: Account, parts: ReplyParts) -> SigningRequest:
    """Return the open request; raise `RefusedError` if there is none, or if the reply answers a closed one."""
    if not parts.certificates:
        raise RefusedError(
            "the reply has no certificate",
            hint=f"a client_id alone is set by: broker app set {account.name}/APPLICATION --client-id ID",
        )
    late = next((r for r in account.requests if r.closed and parts.holds(r.spki)), None)
    if late and not _answers_open(account, parts):
        raise LateReplyError(account, late)
    if account.open_request is None:
        raise RefusedError(
            f"{account.name} waits for no certificate, and this one fits no key of its requests",
            hint=f"broker csr new {account.name} makes a request",
        )
    return account.open_request


def _question(account: Account, certificate: Certificate, reply: Reply, wanted: Sequence[CaSet]) -> Finding:
    """Return the error that nobody accepted the CA of the certificate, with the command that accepts it."""
    parts, options = reply.parts, reply.options
    path = load(certificate.pem)
    if reason := unverifiable(path[0], [*parts.certificates, *(ca for one in wanted for ca in load(one.pem))]):
        message = f"the certificate does not chain to a CA: {reason}"
        return Finding.error("reply.ca", message, "ask the partner for one from a CA with a stronger key and SHA-256")
    issuer = parts.issuer_of(certificate)
    if issuer is None:
        message = "the certificate is signed by a CA that is neither accepted nor in the reply"
        return Finding.error("reply.ca", message, "ask the partner for its CA certificate, and import both in one file")
    known = {issuer.fingerprint, *map(fingerprint_of, path)}.union(*_pinned(account), *(a.fingerprints for a in wanted))
    accepted = [describe(ca) for ca in load(account.ca_set(account.issuing).pem)] if account.issuing else []
    namesake = any(ca.subject == issuer.subject and ca.spki != issuer.spki for ca in accepted)
    alike = "; an accepted CA has this name and another key, so it may be forged" if namesake else ""
    others = [d for d in parts.authorities if d.fingerprint not in known]
    more = "".join(f"; the reply also has {d.named}: accept it too, if it is the server's" for d in others)
    return Finding.error(
        "reply.ca",
        f"the certificate is signed by a CA that is not accepted: {issuer.named}{alike}{more}",
        f"compare fingerprints with the partner over another channel, then: {options.command(account)} "
        f"--accept-ca {format_fingerprint(issuer.fingerprint)}",
    )


def _open(account: Account, question: Finding | None) -> Iterator[Finding]:
    """Yield what a person must do before the reply is taken."""
    if not account.secrets:
        message = f"{account.name} has no password yet"
        yield Finding.error("reply.password", message, f"broker password set {account.name}")
    if question:
        yield question


def _pinned(account: Account) -> tuple[frozenset[str], frozenset[str]]:
    """Return the fingerprints of the CAs for replies, and for the partner's server."""
    refs = account.issuing, account.trust
    issuing, trust = (frozenset(account.ca_set(ref).fingerprints if ref else ()) for ref in refs)
    return issuing, trust


def _with_authorities(
    account: Account, wanted: Sequence[CaSet], issuing: Sequence[CaSet], options: ImportOptions, stamp: Stamp
) -> Account:
    """Return the account with the accepted CAs: those above the certificate are `issuing`, others the server's.

    The first time, the issuing CAs are the server's too if a person named no other. Later, those of the current
    generation are kept beside the new ones, as with `trust set`.
    """
    if issuing:
        pinned = [account.ca_set(account.issuing)] if account.issuing else []
        account = ca_accepted(account, _together([*issuing, *pinned]), stamp)
    server = [a for a in wanted if a not in issuing]
    if options.server_ca:
        server.append(ca_set(options.server_ca))
    trust = server or (issuing if account.trust is None else [])
    return server_cas_named(account, _together(trust).pem, stamp) if trust else account


def server_cas_named(account: Account, named: str, stamp: Stamp) -> Account:
    """Have the CAs in `named`, as PEM, verify the server, and those of the current generation too.

    So bundles work before and after the partner changes its server's certificate.
    """
    current = account.current
    kept = account.ca_set(current.parts.trust).pem if current else ""
    return trust_set(account, ca_set(named + kept), stamp)


def _together(several: Sequence[CaSet]) -> CaSet:
    return ca_set("".join(a.pem for a in several))


def _chains(certificate: Certificate, parts: ReplyParts, authorities: CaSet) -> bool:
    return any(paths(load(certificate.pem)[0], parts.certificates, load(authorities.pem)))


def _with_client_id(account: Account, parts: ReplyParts, options: ImportOptions, stamp: Stamp) -> Account:
    if not options.client_id_for:
        return account
    named = parts.client_ids
    if options.client_id and options.client_id not in named:
        raise RefusedError(
            f"the reply does not name the client_id {options.client_id}", hint=f"it names {', '.join(named) or 'none'}"
        )
    if not options.client_id and not named:
        raise RefusedError(
            "the reply names no client_id",
            hint=f"import without --client-id-for; then: {_set_command(account, options.client_id_for, 'ID')}",
        )
    if not options.client_id and len(named) > 1:
        raise RefusedError(
            f"the reply names {len(named)} client_ids: {', '.join(named)}",
            hint="choose one: " + " or ".join(f"--client-id {value}" for value in named),
        )
    wanted, stored = options.client_id or named[0], account.application(options.client_id_for).client_id
    if stored not in ("", wanted):
        raise RefusedError(
            f"{account.name}/{options.client_id_for} has the client_id {stored}, and the reply names {wanted}",
            hint="import without --client-id-for; "
            f"if the new one is right: {_set_command(account, options.client_id_for, wanted)}",
        )
    return application_set(account, options.client_id_for, wanted, stamp)


def _set_command(account: Account, application: str, client_id: str) -> str:
    return f"broker app set {account.name}/{application} --client-id {client_id}"
