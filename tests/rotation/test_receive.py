"""Imports of replies: matching the open request, accepting CAs, reporting client_ids."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.copies import replace
from broker.errors import RefusedError
from broker.model.authentication import PASSWORD
from broker.model.changes import registering, requesting
from broker.model.finding import FindingsError, Severity
from broker.model.fingerprint import format_fingerprint
from broker.model.generation import Closed, SigningRequest, key_ref
from broker.model.history import Event
from broker.model.stage import Stage
from broker.model.subject import Subject
from broker.partners import catalogue
from broker.pki.certificate_fields import fingerprint_of
from broker.pki.certificates import ca_set, load
from broker.pki.csr import build
from broker.pki.keys import spki_of
from broker.pki.reply import read_reply
from broker.pki.verification import ACCEPTABLE
from broker.rotation.receive import ImportOptions, LateReplyError, Received
from tests.rotation.simulation import Simulation
from tests.support import pki
from tests.support.accounts import BY, MZP, NOW, STAMP, an_account, assert_refused, promoted

ROOT = pki.a_ca("Root")
MIDDLE = pki.a_ca("Middle", issuer=ROOT)
SERVER = pki.a_ca("Server CA")
STRANGER = pki.a_ca("Stranger")
FIRST, SECOND = pki.a_key("first"), pki.a_key("second")
OLD, NEW = pki.a_leaf(MIDDLE, FIRST), pki.a_leaf(MIDDLE, SECOND)
ACCEPTED = ImportOptions(accept=(fingerprint_of(ROOT.certificate),))
BOTH = ImportOptions(accept=(*ACCEPTED.accept, fingerprint_of(SERVER.certificate)))
CLIENT_ID = "1eebc2d5-5df3-459b-a624-20abfcf82530"
CAS = (MIDDLE.certificate, ROOT.certificate, SERVER.certificate)


def a_simulation() -> Simulation:
    """An account with a password and its first request open."""
    account = replace(an_account(), login=pki.LOGIN)
    account = registering.secret_set(account, PASSWORD, 1, STAMP)
    sim = Simulation(now=pki.NOW)
    sim.write(requesting.requested(account, _request(1, FIRST), by=BY), replacing=0)  # type: ignore[arg-type]
    return sim


def renewing() -> Simulation:
    """The same once its first set is there and a second request is open."""
    sim = a_simulation()
    received(sim, OLD, *CAS, said=BOTH)
    found = sim.read(MZP)
    sim.write(requesting.requested(found.account, _request(2, SECOND), by=BY), replacing=found.version)
    return sim


def with_client_id(client_id: str) -> Simulation:
    """An account with an open request and the application fleet."""
    sim = a_simulation()
    found = sim.read(MZP)
    sim.write(registering.application_set(found.account, "fleet", client_id, STAMP), replacing=found.version)
    return sim


def received(
    sim: Simulation,
    *reply: x509.Certificate,
    said: ImportOptions = ImportOptions(),  # noqa: B008 - a value
    text: str = "",
) -> Received:
    profile = replace(catalogue.builtin("stellantis"), subject=pki.GUIDE)
    return sim.rotation(profile=lambda _: profile).receive(MZP, read_reply((text + pki.pem(*reply)).encode()), said)


def kept(sim: Simulation) -> list[x509.Certificate]:
    """The leaf of the newest generation, and what is sent with it."""
    account = sim.account
    return load(account.certificate(account.generations[-1].parts.certificate).pem)


def _request(number: int, key: pki.AnyKey) -> SigningRequest:
    secret = pki.secret_of(key)
    return SigningRequest(number, key_ref(number), spki_of(secret), build(secret, pki.GOOD, pki.RULES), NOW)


@pytest.mark.parametrize("reply", [(OLD, NEW), (NEW, OLD)], ids=["old first", "new first"])
def test_reply_with_old_certificate_answers(
    reply: tuple[x509.Certificate, ...],
) -> None:
    sim = renewing()
    for _ in range(2):  # the same command again
        assert received(sim, *reply, *CAS).generation.number == 2
        assert sim.account.open_request is None
        assert fingerprint_of(kept(sim)[0]) == fingerprint_of(NEW)
    assert len(sim.account.generations) == 2


def test_old_reply_is_known() -> None:
    sim = renewing()
    assert received(sim, OLD, *CAS).generation.number == 1
    assert sim.account.open_request


def test_repeated_import_changes_nothing() -> None:
    sim = a_simulation()
    said = replace(BOTH, server_ca=STRANGER.pem.encode())
    received(sim, OLD, *CAS, said=said)
    trust = sim.account.ca_set(sim.account.trust or pytest.fail("no trust"))
    assert set(trust.fingerprints) == {fingerprint_of(c.certificate) for c in (SERVER, STRANGER)}
    before = sim.account
    assert received(sim, OLD, *CAS, said=said).generation.number == 1
    assert received(sim, OLD, *CAS, said=ACCEPTED).generation.number == 1
    assert sim.account == before


def test_the_candidate_of_a_change_is_known() -> None:
    """`trust set` made another of the first, which it rejected: an import that is run again goes on with that."""
    sim = a_simulation()
    received(sim, OLD, *CAS, said=BOTH)
    found = sim.read(MZP)
    sim.write(registering.trust_set(found.account, ca_set(STRANGER.pem.encode()), STAMP), replacing=found.version)
    assert [g.stage for g in sim.account.generations] == [Stage.REJECTED, Stage.CANDIDATE]
    assert received(sim, OLD, *CAS).generation.number == 2


@pytest.mark.parametrize("by_file", [True, False], ids=["--server-ca", "in the reply"])
def test_new_server_cas_overlap(by_file: bool) -> None:
    """As with `trust set`: a candidate has old and new CAs. Repeating the import changes nothing."""
    sim = renewing()
    found = sim.read(MZP)
    sim.write(promoted(found.account, 1), replacing=found.version)
    new = fingerprint_of(STRANGER.certificate)
    said = ImportOptions(server_ca=STRANGER.pem.encode()) if by_file else ImportOptions(accept=(new,))
    for _ in range(2):
        received(sim, NEW, *CAS, *(() if by_file else (STRANGER.certificate,)), said=said)
        [candidate] = [g for g in sim.account.candidates if g.parts.trust]
        assert candidate.parts.trust == sim.account.trust
        assert {*sim.account.ca_set(sim.account.trust).fingerprints} == {new, fingerprint_of(SERVER.certificate)}


@pytest.mark.parametrize(
    "said",
    [
        ImportOptions(accept=(fingerprint_of(STRANGER.certificate),)),
        ImportOptions(server_ca=STRANGER.pem.encode()),
        ImportOptions(server_ca=pki.der(ROOT.certificate)),
    ],
    ids=["another issuing CA", "another server CA", "another server CA as DER"],
)
def test_known_reply_refuses_new_cas(said: ImportOptions) -> None:
    sim = a_simulation()
    received(sim, OLD, *CAS, said=BOTH)
    before = sim.account
    with assert_refused(RefusedError, "has this certificate already", "nothing was changed"):
        received(sim, OLD, *CAS, STRANGER.certificate, said=said)
    assert sim.account == before


BAD_TWINS = [
    pki.a_ca("Middle", issuer=ROOT, not_before=pki.NOW - timedelta(days=900), not_after=pki.NOW - timedelta(days=1)),
    pki.a_ca("Middle", issuer=ROOT, cert_sign=False),
    pki.a_ca("Middle", issuer=ROOT, basic=x509.BasicConstraints(ca=False, path_length=None)),
    pki.a_ca("Middle", issuer=ROOT, extra=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]),
    pki.a_ca("Middle", issuer=STRANGER),
]


@pytest.mark.parametrize("place", range(len(BAD_TWINS) + 1))
def test_bad_neighbours_do_not_spoil_a_path(place: int) -> None:
    """One CA under the same name and key many times, wherever the good one stands; only that is kept."""
    twins = [twin.certificate for twin in BAD_TWINS]
    twins.insert(place, MIDDLE.certificate)
    sim = a_simulation()
    with pytest.raises(FindingsError) as caught:
        received(sim, OLD, *twins, ROOT.certificate)
    assert [f.code for f in caught.value.findings if f.severity is Severity.ERROR] == ["reply.ca"]
    received(sim, OLD, *twins, ROOT.certificate, said=ACCEPTED)
    assert kept(sim) == [OLD, MIDDLE.certificate]


def test_faults_of_the_best_path_are_shown() -> None:
    with pytest.raises(FindingsError) as caught:
        received(a_simulation(), OLD, *(t.certificate for t in BAD_TWINS[:2]), ROOT.certificate, said=ACCEPTED)
    assert [f.code for f in caught.value.findings if f.severity is Severity.ERROR] == ["certificate.ca.expired"]


FOR_SERVERS = pki.a_leaf(MIDDLE, FIRST, eku=[ExtendedKeyUsageOID.SERVER_AUTH], digital_signature=False)
DESPITE = replace(ACCEPTED, findings=("certificate.purpose", "certificate.key-usage"), reason="desk said so")


def test_an_acceptable_error_says_how() -> None:
    sim = a_simulation()
    for said, code in (
        (ACCEPTED, "certificate.purpose"),
        (replace(DESPITE, findings=("certificate.purpose",)), "certificate.key-usage"),
    ):
        with pytest.raises(FindingsError) as caught:
            received(sim, FOR_SERVERS, *CAS, said=said)
        assert f"broker cert import {MZP} FILE --accept {code} --reason TEXT" in caught.value.hint
    assert not sim.account.generations


def test_an_accepted_finding_is_evidence() -> None:
    sim = a_simulation()
    done = received(sim, FOR_SERVERS, *CAS, said=DESPITE)
    found = {f.code: f for f in done.findings}
    assert found["certificate.purpose"].severity is Severity.WARNING
    assert found["certificate.purpose"].message.endswith(": accepted")
    entries = [e.facts for e in sim.account.outbox if e.what == Event.FINDING_ACCEPTED.value]
    digest = fingerprint_of(FOR_SERVERS)
    assert entries == [
        {"certificate": digest, "finding": code, "reason": "desk said so"} for code in sorted(DESPITE.findings)
    ]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (pki.a_leaf(MIDDLE, FIRST, is_ca=True), "certificate.is-ca"),
        (pki.a_leaf(MIDDLE, FIRST, not_before=pki.NOW - timedelta(9), not_after=pki.NOW), "certificate.expired"),
    ],
)
def test_some_errors_are_never_accepted(reply: x509.Certificate, code: str) -> None:
    assert code not in ACCEPTABLE
    with pytest.raises(FindingsError) as caught:
        received(a_simulation(), reply, *CAS, said=replace(DESPITE, findings=(code,)))
    assert [f.code for f in caught.value.findings if f.severity is Severity.ERROR] == [code]


def test_danger_to_others_is_unacceptable() -> None:
    """A wrong key, a CA nobody accepted, CA:TRUE, weak keys and signatures, expiry."""
    never = ("key", "issuer", "unpinned", "is-ca", "key.weak", "signature.weak", "expired", "not-yet-valid", "chain")
    of_cas = ("not-a-ca", "weak-key", "signature.weak", "expired", "not-yet-valid")
    codes = {f"certificate.{code}" for code in (*never, *(f"ca.{code}" for code in of_cas))}
    assert not set(ACCEPTABLE) & codes


def test_a_version_1_leaf_may_be_accepted() -> None:
    assert isinstance(MIDDLE.key, rsa.RSAPrivateKey)
    old = pki.altered(OLD, MIDDLE.key, lambda fields: fields[1:-1])
    sim = a_simulation()
    received(sim, old, *CAS, said=replace(DESPITE, findings=("certificate.version",)))
    assert kept(sim)[0] == old


def test_an_accepted_finding_hides_no_other() -> None:
    """OpenSSL is asked in spite of it, and refuses the names."""
    elsewhere = x509.NameConstraints([x509.RFC822Name("elsewhere.example")], None)
    narrow = pki.a_ca("Middle", issuer=ROOT, extra=[(elsewhere, True)])
    leaf = pki.a_leaf(narrow, FIRST, digital_signature=False)
    with pytest.raises(FindingsError) as caught:
        received(a_simulation(), leaf, narrow.certificate, *CAS[1:], said=DESPITE)
    assert [f.code for f in caught.value.findings if f.severity is Severity.ERROR] == ["certificate.chain"]


def test_certificate_of_accepted_ca_is_taken() -> None:
    decoy = pki.a_leaf(STRANGER, FIRST, not_after=pki.NOW + timedelta(days=1500))
    sim = a_simulation()
    received(sim, decoy, OLD, *CAS, STRANGER.certificate, said=BOTH)
    assert fingerprint_of(kept(sim)[0]) == fingerprint_of(OLD)


def test_only_certificates_on_path_are_kept() -> None:
    """The intermediate's name and key, certified by a stranger too, and first in the file."""
    cross = pki.a_ca("Middle", key=MIDDLE.key, issuer=pki.a_ca("Strange middle", issuer=STRANGER))
    above = pki.a_ca("Strange middle", issuer=STRANGER)
    sim = a_simulation()
    received(sim, cross.certificate, above.certificate, STRANGER.certificate, OLD, *CAS, said=BOTH)
    assert kept(sim) == [OLD, MIDDLE.certificate]


def test_pinned_intermediate_is_sent() -> None:
    sim = a_simulation()
    received(sim, OLD, *CAS, said=ImportOptions(accept=(fingerprint_of(MIDDLE.certificate),)))
    assert kept(sim) == [OLD, MIDDLE.certificate]


def test_known_issuer_hides_nothing() -> None:
    """Without BasicConstraints, a leaf that somebody claims to be issued by looks like a CA."""
    name = pki.a_name(pki.GOOD)
    claims = pki.a_leaf(STRANGER, pki.a_key("junk"), "junk", issuer_name=name)
    bare = pki.a_leaf(MIDDLE, FIRST, basic=False)
    sim = a_simulation()
    for _ in range(2):
        assert received(sim, bare, claims, *CAS, said=BOTH).generation.number == 1


def test_a_late_reply_is_still_named() -> None:
    sim = a_simulation()
    found = sim.read(MZP)
    closed = requesting.closed(found.account, 1, Closed.SUPERSEDED, STAMP)
    sim.write(closed, replacing=found.version)
    with assert_refused(LateReplyError, "signing request 1", "superseded"):
        received(sim, OLD, *CAS, said=BOTH)


def test_server_ca_does_not_sign_clients() -> None:
    sim = a_simulation()
    received(sim, OLD, *CAS, said=BOTH)
    account = sim.account
    assert account.issuing
    assert account.ca_set(account.issuing).fingerprints == ACCEPTED.accept
    assert account.trust
    assert account.ca_set(account.trust).fingerprints == (fingerprint_of(SERVER.certificate),)


def test_new_issuing_ca_keeps_server_ca() -> None:
    sim = renewing()
    before = sim.account.trust
    reply = (pki.a_leaf(STRANGER, SECOND), STRANGER.certificate)
    received(sim, *reply, said=ImportOptions(accept=(fingerprint_of(STRANGER.certificate),)))
    assert sim.account.candidates[-1].parts.trust == sim.account.trust == before


def test_a_changed_subject_is_reported() -> None:
    subject = Subject(tuple((n, "Other Company" if n == "O" else v) for n, v in pki.GOOD.attributes))
    found = received(a_simulation(), pki.a_leaf(MIDDLE, FIRST, subject), *CAS, said=BOTH).findings
    assert [(f.severity, f.code) for f in found] == [(Severity.WARNING, "certificate.subject.changed")]
    assert "O is 'Other Company' in the certificate, and is 'Société Exemple' in the request" in found[0].message


def test_a_ca_key_that_is_not_used_is_named() -> None:
    """In place of the advice to accept it, which was followed already."""
    old = pki.a_ca("Old", key=dsa.generate_private_key(1024))
    sim = a_simulation()
    before = sim.account
    said = ImportOptions(accept=(fingerprint_of(old.certificate),))
    with assert_refused(FindingsError, "nothing is verified by that CA's key (dsa 1024)"):
        received(sim, pki.a_leaf(old, FIRST), old.certificate, said=said)
    assert sim.account == before


def test_an_unlabelled_uuid_is_never_taken() -> None:
    sim = a_simulation()
    before = sim.account
    said = replace(BOTH, client_id_for="fleet")
    with assert_refused(FindingsError, "the reply names no client_id"):
        received(sim, OLD, *CAS, said=said, text=f"Message-ID: <{CLIENT_ID}@partner.example>\n\n")
    assert sim.account == before


def test_a_stored_client_id_is_not_replaced() -> None:
    """Not even by a labelled one; the hint is the command that does it."""
    sim = with_client_id("the-right-one-1")
    before = sim.account
    said = replace(BOTH, client_id_for="fleet")
    for words in (said, replace(said, client_id=CLIENT_ID)):
        with pytest.raises(RefusedError, match=f"has the client_id the-right-one-1, .* names {CLIENT_ID}") as refusal:
            received(sim, OLD, *CAS, said=words, text=f"client_id: {CLIENT_ID}\n")
        assert refusal.value.hint.endswith(f": broker app set {MZP}/fleet --client-id {CLIENT_ID}")
    assert sim.account == before
    [found] = received(sim, OLD, *CAS, said=BOTH, text=f"client_id: {CLIENT_ID}\n").findings
    assert (found.severity, found.code) == (Severity.WARNING, "reply.client-id")
    assert found.hint.endswith(f"broker app set {MZP}/fleet --client-id {CLIENT_ID}")


def test_a_new_client_id_is_only_offered() -> None:
    sim = with_client_id("")
    [found] = received(sim, OLD, *CAS, said=BOTH, text=f"client_id: {CLIENT_ID}\n").findings
    assert (found.severity, found.code) == (Severity.NOTE, "reply.client-id")
    assert sim.account.application("fleet").client_id == ""
    received(sim, OLD, *CAS, said=ImportOptions(client_id_for="fleet"), text=f"client_id: {CLIENT_ID}\n")
    assert sim.account.application("fleet").client_id == CLIENT_ID
    assert received(sim, OLD, *CAS, text=f"client_id: {CLIENT_ID}\n").findings == ()


def test_a_client_id_of_nobody_is_offered() -> None:
    [found] = received(a_simulation(), OLD, *CAS, said=BOTH, text=f"client_id: {CLIENT_ID}\n").findings
    assert found.hint.endswith(f"broker app add {MZP}/APPLICATION --client-id {CLIENT_ID}")


def test_an_assumed_server_ca_is_named() -> None:
    [found] = received(a_simulation(), OLD, *CAS, said=ACCEPTED).findings
    assert (found.severity, found.code) == (Severity.NOTE, "reply.server-ca")
    assert received(a_simulation(), OLD, *CAS, said=BOTH).findings == ()


def test_client_id_not_in_reply_is_refused() -> None:
    sim = a_simulation()
    before = sim.account
    unnamed = replace(BOTH, client_id_for="fleet", client_id="00000000-dead-beef-0000-000000000000")
    with assert_refused(FindingsError, "does not name the client_id"):
        received(sim, OLD, *CAS, said=unnamed)
    assert sim.account == before


def refusal(
    sim: Simulation,
    *reply: x509.Certificate,
    said: ImportOptions = ImportOptions(),  # noqa: B008 - a value
) -> FindingsError:
    with pytest.raises(FindingsError) as caught:
        received(sim, *reply, said=said)
    return caught.value


def errors(refused: FindingsError) -> list[str]:
    return [f.code for f in refused.findings if f.severity is Severity.ERROR]


def test_all_faults_are_reported_together() -> None:
    """The question that a telephone call answers is last: nobody calls about a reply that cannot be used."""
    sim = a_simulation()
    found = sim.read(MZP)
    sim.write(replace(found.account, secrets={}), replacing=found.version)
    wrong = Subject(tuple((n, "MZP7654321" if n == "CN" else v) for n, v in pki.GOOD.attributes))
    refused = refusal(sim, pki.a_leaf(MIDDLE, FIRST, wrong), *CAS, said=ImportOptions(client_id_for="fleet"))
    assert errors(refused) == ["certificate.cn", "reply.client-id", "reply.password", "reply.ca"]


def test_ca_question_leaves_out_trusted_ones() -> None:
    """Neither the CAs on the path below, nor those that are pinned already."""
    said = ImportOptions(typed="broker cert import mzp-1 'a reply.zip' --client-id-for fleet")
    refused = refusal(a_simulation(), OLD, *CAS, said=said)
    root, server = (format_fingerprint(fingerprint_of(c.certificate)) for c in (ROOT, SERVER))
    assert refused.hint.endswith(f", then: {said.typed} --accept-ca {root}")
    assert server in refused.message
    assert "Middle" not in refused.message
    refused = refusal(renewing(), pki.a_leaf(STRANGER, SECOND), STRANGER.certificate, *CAS)
    assert "Stranger" in refused.message
    assert "Root" not in refused.message
    assert "Server CA" not in refused.message
    assert "forged" not in refused.message
    forger = pki.a_ca("Root", key=pki.a_key("forged"))
    assert (
        "has this name and another key" in refusal(renewing(), pki.a_leaf(forger, SECOND), forger.certificate).message
    )


def test_unaccepted_ca_is_judged_already() -> None:
    """Its faults come with the question, not after it."""
    old = pki.a_ca("Old", not_after=pki.NOW - timedelta(days=1))
    assert errors(refusal(a_simulation(), pki.a_leaf(old, FIRST), old.certificate)) == [
        "certificate.ca.expired",
        "reply.ca",
    ]


def test_second_certificate_names_the_first() -> None:
    """Its key is alive: only the answer came twice."""
    sim = renewing()
    with assert_refused(LateReplyError, "signing request 1", "answered", "generation 1 has its key"):
        received(sim, pki.a_leaf(MIDDLE, FIRST, not_after=pki.NOW + timedelta(days=100)), *CAS)


def test_reply_for_another_account_is_named() -> None:
    """Also if this account waits for none; and the caller need not be allowed to list the others."""
    other = replace(an_account("other"), requests=(_request(1, SECOND),))
    profile = replace(catalogue.builtin("stellantis"), subject=pki.GUIDE)
    for sim in (a_simulation(), Simulation(now=pki.NOW)):
        if not sim.documents:
            sim.registry().add_account(an_account())
        use = sim.rotation(profile=lambda _: profile, others=lambda: [sim.account, other])  # noqa: B023
        with assert_refused(RefusedError, "answers signing request 1 of other"):
            use.receive(MZP, read_reply(pki.pem(NEW, *CAS).encode()), BOTH)
        with pytest.raises(RefusedError, match=r"this one fits no key|no certificate for the key of this request"):
            received(sim, NEW, *CAS, said=BOTH)
