"""Import a reply of the partner. It is untrusted until it fits a key of ours and a CA that a person accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from broker.errors import RefusedError
from broker.model.account import Account
from broker.model.certificate import CaSet, Certificate
from broker.model.changes import answered, application_set, ca_accepted, trust_set
from broker.model.finding import Finding, Severity, refuse_errors
from broker.model.generation import Closed, Generation, SigningRequest
from broker.model.names import AccountName
from broker.model.stamp import Stamp
from broker.model.subject import SubjectRules
from broker.pki import csr
from broker.pki.certificate_fields import fingerprint_of
from broker.pki.certificates import Description, ca_set, format_fingerprint, load, parse_fingerprint
from broker.pki.chain import paths, unverifiable
from broker.pki.reply import ReplyParts
from broker.pki.verification import Expected, best_path, verify_certificate


class LateReplyError(RefusedError):
    """The reply answers a closed request, which is named, so that a person knows which mail it was."""

    def __init__(self, name: AccountName, number: int, why: Closed) -> None:
        super().__init__(
            f"this answers signing request {number} of {name}, which was {why.value}",
            hint=f"its key is gone, so it cannot be used; broker csr show {name} shows the open request",
        )


class UnknownAuthorityError(RefusedError):
    """The certificate is signed by a CA that is not accepted for this account."""

    def __init__(self, name: AccountName, issuer: Description | None, others: Sequence[Description]) -> None:
        if issuer is None:
            super().__init__(
                f"the certificate for {name} is signed by a CA that is neither accepted nor in the reply",
                hint="ask the partner for its CA certificate, and import both in one file",
            )
            return
        shown = format_fingerprint(issuer.fingerprint)
        more = "".join(f"; the reply also has {d.named}: accept it too, if it is the server's" for d in others)
        super().__init__(
            f"the certificate for {name} is signed by a CA that is not accepted: {issuer.named}{more}",
            hint=f"compare fingerprints with the partner over another channel, then: --accept-ca {shown}",
        )


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of an import."""

    accept: Sequence[str] = ()  # SHA-256 fingerprints of CAs in the reply
    server_ca: bytes = b""  # PEM or DER: CAs that verify the partner's server, in place of those in the reply
    client_id_for: str = ""  # an application's name
    client_id: str = ""  # if the reply names several


@dataclass(frozen=True, slots=True)
class Received:
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
        account, certificate = _with_authorities(account, request, self, stamp)
        issuing = account.ca_set(account.issuing) if account.issuing else None
        expected = Expected(
            self.rules, account.login, issuing, request.spki, csr.parse(request.csr.encode()).name.subject
        )
        found = verify_certificate(certificate, expected, stamp.at)
        self.findings = (*parts.findings, *found, *_assumed(before, account, options))
        refuse_errors(f"the reply for {account.name}", self.findings)
        account = answered(account, request.number, certificate, stamp)
        return _with_client_id(account, parts, options, stamp)

    def received(self, after: Account) -> Received:
        """Return the result; raise `RefusedError` if the candidate is gone already."""
        generation = _known(after, self.parts)
        if generation is None:
            raise RefusedError(
                f"the reply for {after.name} was stored, and overtaken immediately",
                hint=f"broker account show {after.name}",
            )
        findings = (*self.findings, *_unclaimed(after, self.parts.client_ids))
        return Received(after, generation, findings, self.parts.client_ids)


def _unclaimed(account: Account, client_ids: Sequence[str]) -> Iterator[Finding]:
    """Yield each client_id in the reply that no application has, and the commands that set it."""
    lacking = [a for a in account.applications if not a.client_id]
    stored = "".join(f"; {account.name}/{a.name} has {a.client_id or 'none'}" for a in account.applications)
    for client_id in client_ids:
        if any(a.client_id == client_id for a in account.applications):
            continue
        message = f"the reply names the client_id {client_id}, which no application has{stored}"
        ways = [_set_command(account, a.name, client_id) for a in lacking or account.applications]
        hint = " or ".join(ways) or f"broker app add {account.name}/APPLICATION --client-id {client_id}"
        severity = Severity.NOTE if lacking else Severity.WARNING
        yield Finding("reply.client-id", severity, message, f"if it is right: {hint}")


def _assumed(before: Account, after: Account, options: ImportOptions) -> Iterator[Finding]:
    """Yield a note if the issuing CA verifies the partner's server only because no other CA was named."""
    if before.trust is None and after.trust == after.issuing and not options.server_ca:
        message = "no CA of the partner's server was named, so the issuing CA verifies the server too"
        hint = f"if it has another: broker trust set {after.name} FILE --accept-ca SHA256"
        yield Finding.note("reply.server-ca", message, hint)


def _answers_open(account: Account, parts: ReplyParts) -> bool:
    return account.open_request is not None and parts.holds(account.open_request.spki)


def _known(account: Account, parts: ReplyParts) -> Generation | None:
    """Return the generation made from the reply: the newest, since partners send older certificates along."""
    refs = {fingerprint_of(c) for c in parts.certificates}
    made = {g.parts.certificate: g for g in reversed(account.generations) if g.parts.certificate in refs}
    return max(made.values(), key=lambda g: g.number, default=None)


def _refuse_news(account: Account, options: ImportOptions) -> None:
    """Raise `RefusedError` if the options name CAs for a reply that is known, unless they are pinned already."""
    issuing, trust = (set(account.ca_set(ref).fingerprints if ref else ()) for ref in (account.issuing, account.trust))
    accepted = {parse_fingerprint(text) for text in options.accept}
    server = set(ca_set(options.server_ca).fingerprints) if options.server_ca else trust
    if accepted <= issuing | trust and server <= trust <= server | accepted:
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
    if late and late.closed and not _answers_open(account, parts):
        raise LateReplyError(account.name, late.number, late.closed)
    if account.open_request is None:
        raise RefusedError(
            f"{account.name} waits for no certificate, and this one fits no key of its requests",
            hint=f"broker csr new {account.name} makes a request",
        )
    return account.open_request


def _with_authorities(
    account: Account, request: SigningRequest, reply: Reply, stamp: Stamp
) -> tuple[Account, Certificate]:
    """Return the account with the accepted CAs, and the certificate that chains to one of them.

    Accepted CAs above the certificate become issuing CAs, others the server's.
    """
    parts, options = reply.parts, reply.options
    wanted = [parts.accepted(fingerprint) for fingerprint in options.accept]
    pinned = account.ca_set(account.issuing) if account.issuing else None
    trusted = [*wanted, pinned] if pinned else wanted
    cas = [ca for one in trusted for ca in load(one.pem)]
    certificate = parts.for_spki(request.spki, partial(best_path, trusted=cas, now=stamp.at))
    issuing = [a for a in wanted if _chains(certificate, parts, a)]
    server = [a for a in wanted if a not in issuing]
    if not issuing and not (pinned and _chains(certificate, parts, pinned)):
        if reason := unverifiable(load(certificate.pem)[0], [*parts.certificates, *cas]):
            raise RefusedError(
                f"the certificate for {account.name} does not chain to a CA: {reason}",
                hint="ask the partner for a certificate from a CA with a stronger key and SHA-256",
            )
        issuer = parts.issuer_of(certificate)
        others = [d for d in parts.authorities if issuer is None or d.fingerprint != issuer.fingerprint]
        raise UnknownAuthorityError(account.name, issuer, others)
    if issuing:
        account = ca_accepted(account, _together([*issuing, pinned] if pinned else issuing), stamp)
    return _with_trust(account, server or issuing, options, stamp, asked=bool(server)), certificate


def _with_trust(
    account: Account, fallback: Sequence[CaSet], options: ImportOptions, stamp: Stamp, *, asked: bool
) -> Account:
    """Set the server's CAs: those that a person named; the first time, else the issuing CAs of the reply."""
    if options.server_ca:
        named = ca_set(options.server_ca)
        return trust_set(account, _together([named, *fallback] if asked else [named]), stamp)
    if (asked or account.trust is None) and fallback:
        return trust_set(account, _together(fallback), stamp)
    return account


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
