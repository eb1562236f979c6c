"""The desk rejects the CSRs that the partner's people would, signs the rest, and makes mistakes only on request."""

from __future__ import annotations

import email
import email.policy
import io
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from partner_standin import Standin
from partner_standin.reply import Reply

from tests.support.partner import LOGIN, PASSWORD, SUBJECT, Clock, Customer, a_csr, desk, key_pem


def assert_rejected(partner: Standin, sent: bytes, *codes: str) -> None:
    answer = desk(partner, "POST", "/desk/requests", sent)
    assert answer.status == 422
    assert answer.json["status"] == "rejected"
    assert [reason["code"] for reason in answer.json["reasons"]] == list(codes)
    assert all(reason["message"] for reason in answer.json["reasons"])
    assert partner.desk.requests() == ()


def leaf(reply: Reply) -> x509.Certificate:
    return x509.load_pem_x509_certificate(reply.certificate.encode())


def a_mail(csr: bytes) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"] = "Ops <ops@exemple.example>", "programs@partner.example"
    mail["Message-ID"], mail["Subject"] = "<one@exemple.example>", "CSR"
    mail.set_content("please sign")
    mail.add_attachment(csr, maintype="application", subtype="pkcs10", filename="request.csr")
    return mail.as_bytes()


# rejections


@pytest.mark.parametrize("unit", ["Programs Partner", "programs partners", "Programs Partners ", ""])
def test_any_other_ou_is_rejected(partner: Standin, key: rsa.RSAPrivateKey, unit: str) -> None:
    assert_rejected(partner, a_csr(key, OU=unit), "wrong-ou")


@pytest.mark.parametrize("name", ["MZP9999999", LOGIN.lower(), ""])
def test_an_unknown_login_is_rejected(partner: Standin, key: rsa.RSAPrivateKey, name: str) -> None:
    assert_rejected(partner, a_csr(key, CN=name), "unknown-login")


def test_a_missing_email_is_rejected(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    assert_rejected(partner, a_csr(key, emailAddress=""), "missing-email")


def test_a_short_key_is_rejected(partner: Standin) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert_rejected(partner, a_csr(weak), "weak-key")


def test_a_key_that_is_not_rsa_is_rejected(partner: Standin) -> None:
    assert_rejected(partner, a_csr(ec.generate_private_key(ec.SECP256R1())), "not-rsa")


def test_a_bad_self_signature_is_rejected(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    der = bytearray(a_csr(key, der=True))
    der[-1] ^= 1
    assert_rejected(partner, bytes(der), "bad-signature")


def test_all_reasons_are_reported_together(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    assert_rejected(partner, a_csr(key, OU="x", CN="y", emailAddress=""), "wrong-ou", "unknown-login", "missing-email")


@pytest.mark.parametrize("sent", [b"", b"hello", b"From: a@b.example\r\n\r\nno csr here\r\n", b"\xff\xfe\x00"])
def test_input_without_a_csr_is_rejected(partner: Standin, sent: bytes) -> None:
    assert_rejected(partner, sent, "no-csr")


@pytest.mark.parametrize("sent", [b"0\x82\x01", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_unreadable_csrs_are_rejected(partner: Standin, sent: bytes) -> None:
    assert_rejected(partner, sent, "unreadable")


def test_a_private_key_is_rejected(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    assert_rejected(partner, key_pem(key), "unreadable")


def test_a_fault_rejects_every_request(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    partner.faults.apply("desk-reject@1")
    assert_rejected(partner, a_csr(key), "rejected-by-hand")
    assert partner.sign(a_csr(key)).client_id


@pytest.mark.parametrize("query", ["lifetime=soon", "issuer=me", "colour=red", "lifetime=99999d", "reply=tar"])
def test_unknown_options_are_refused(partner: Standin, key: rsa.RSAPrivateKey, query: str) -> None:
    assert desk(partner, "POST", f"/desk/requests?{query}", a_csr(key)).status == 400


# accepted input, and replies


@pytest.mark.parametrize("form", ["pem", "der", "mail with pem", "mail with der", "mail with pem as text"])
def test_each_form_of_a_csr_is_accepted(partner: Standin, key: rsa.RSAPrivateKey, form: str) -> None:
    csr = a_csr(key, der="der" in form)
    sent = a_mail(csr) if form.startswith("mail") else csr
    if form.endswith("as text"):
        sent = b"From: a@b.example\r\nSubject: CSR\r\n\r\nHello,\r\n" + csr + b"\r\nBye\r\n"
    answer = desk(partner, "POST", "/desk/requests", sent)
    assert (answer.status, answer.json["status"], answer.json["login"]) == (202, "signed", LOGIN)


def test_certificates_keep_key_and_subject(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    certificate = leaf(partner.sign(a_csr(key)))
    assert certificate.public_key() == key.public_key()
    assert [str(attribute.value) for attribute in certificate.subject] == list(SUBJECT.values())
    partner_ca = partner.authorities.issuing[0].certificate
    certificate.verify_directly_issued_by(partner_ca)


def test_the_zip_holds_the_whole_reply(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    answer = desk(partner, "POST", "/desk/requests?reply=zip", a_mail(a_csr(key)))
    assert answer.headers["Content-Type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.body))
    assert archive.namelist() == ["certificate.pem", "issuing-ca.pem", "server-ca.pem", "client_id.txt"]
    assert archive.read("server-ca.pem") == partner.server_ca.read_bytes()
    assert archive.read("issuing-ca.pem") != archive.read("server-ca.pem")
    assert len(archive.read("client_id.txt").strip()) == 36


def test_each_part_can_be_fetched_alone(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    number = desk(partner, "POST", "/desk/requests", a_mail(a_csr(key))).json["id"]
    pem = desk(partner, "GET", f"/desk/requests/{number}/certificate.pem").body
    der = desk(partner, "GET", f"/desk/requests/{number}/certificate.der").body
    assert x509.load_pem_x509_certificate(pem) == x509.load_der_x509_certificate(der)
    raw = desk(partner, "GET", f"/desk/requests/{number}/reply.eml").body
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert mail["In-Reply-To"] == "<one@exemple.example>"
    assert next(mail.iter_attachments()).get_filename() == "certificate.pem"
    assert desk(partner, "GET", f"/desk/requests/{number}/key.pem").status == 404
    assert desk(partner, "GET", "/desk/requests/nobody").status == 404


@pytest.mark.peer("curl")
def test_one_curl_fetches_the_reply(partner: Standin, key: rsa.RSAPrivateKey, tmp_path: Path) -> None:
    (tmp_path / "request.eml").write_bytes(a_mail(a_csr(key)))
    url = f"{partner.desk_url}/desk/requests?reply=zip"
    subprocess.run(
        ["curl", "-q", "-sSf", "--data-binary", "@request.eml", url, "-o", "reply.zip"], cwd=tmp_path, check=True
    )
    assert zipfile.is_zipfile(tmp_path / "reply.zip")


def test_an_application_keeps_its_client_id(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    first, again = (partner.sign(a_csr(key)).client_id for _ in range(2))
    other = partner.sign(a_csr(key), application="reporting").client_id
    assert first == again != other


# delays and terms


def test_a_delayed_request_is_signed_later(timed: Customer, clock: Clock, key: rsa.RSAPrivateKey) -> None:
    partner = timed.partner
    partner.faults.apply("desk-delay=5d")
    answer = desk(partner, "POST", "/desk/requests", a_csr(key))
    number = answer.json["id"]
    assert answer.json["status"] == "waiting"
    assert desk(partner, "GET", f"/desk/requests/{number}/reply.zip").status == 409
    clock.goes_on(5 * 24 * 3600)
    assert desk(partner, "GET", f"/desk/requests/{number}").json["status"] == "signed"


def test_a_caller_may_wait_for_the_signature(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    answer = desk(partner, "POST", "/desk/requests?wait=1&delay=0.2s", a_csr(key))
    assert (answer.status, answer.json["status"]) == (200, "signed")


def test_a_moved_clock_makes_the_desk_sign(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    with Standin(tmp_path / "p", accounts={LOGIN: PASSWORD}, clock=lambda: now) as partner:
        request = partner.desk.submit(a_csr(key), {"delay": "5d"})
        assert request.status == "waiting"
        now += timedelta(days=5)
        assert partner.desk.request(request.number).status == "signed"


def test_validity_follows_the_options(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    certificate = leaf(partner.sign(a_csr(key), lifetime="90s", not_before="-1h"))
    now = datetime.now(UTC)
    assert timedelta(seconds=80) < certificate.not_valid_after_utc - now <= timedelta(seconds=90)
    assert timedelta(minutes=59) < now - certificate.not_valid_before_utc < timedelta(minutes=61)


def test_options_take_precedence_over_faults(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    partner.faults.apply("desk-server-auth@1")
    for options, purpose in (
        ({"purpose": "client"}, ExtendedKeyUsageOID.CLIENT_AUTH),
        ({}, ExtendedKeyUsageOID.SERVER_AUTH),
        ({}, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        extension = leaf(partner.sign(a_csr(key), **options)).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        assert list(extension.value) == [purpose]


def test_a_wrong_key_or_subject_is_signed(partner: Standin, key: rsa.RSAPrivateKey) -> None:
    partner.faults.apply("desk-wrong-key@1")
    assert leaf(partner.sign(a_csr(key))).public_key() != key.public_key()
    partner.faults.apply("desk-wrong-subject@1")
    name = leaf(partner.sign(a_csr(key))).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name[0].value == f"{LOGIN}X"


def test_a_new_ca_keeps_old_certs_valid(customer: Customer) -> None:
    before = (customer.partner.directory / "issuing-ca.pem").read_text()
    customer.partner.faults.apply("desk-new-ca@1")
    newer = customer.enrolled()
    assert (customer.partner.directory / "issuing-ca.pem").read_text() != before
    assert [one.call("/fleets").status for one in (customer, newer)] == [200, 200]


def test_old_certificates_stay_valid(customer: Customer) -> None:
    newer = customer.enrolled()
    assert [one.call("/fleets").status for one in (customer, newer)] == [200, 200]


def test_old_certificates_end_when_set(timed: Customer, clock: Clock) -> None:
    newer = timed.enrolled(revoke_old="30s")
    assert timed.call("/fleets").status == 200
    clock.goes_on(30)
    with pytest.raises(OSError, match=r"(?i)certificate.revoked"):
        timed.call("/fleets", tls="1.3")
    assert newer.call("/fleets").status == 200


def test_revocation_spares_other_leaves(customer: Customer) -> None:
    pair = [customer.enrolled(issuer="intermediate") for _ in range(2)]
    for one in pair:
        assert one.certificate
        with one.certificate.open("a") as file:
            file.write(customer.partner.authorities.intermediate().pem)
    assert desk(customer.partner, "POST", "/desk/revocations", {"serial": pair[0].serial}).status == 200
    with pytest.raises(OSError, match=r"(?i)certificate.revoked"):
        pair[0].call("/fleets")
    assert pair[1].call("/fleets").status == 200


def test_state_survives_a_restart(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    (tmp_path / "customer").mkdir()
    with Standin(tmp_path / "p", accounts={LOGIN: PASSWORD}) as first:
        customer = Customer(first, tmp_path / "customer", key).enrolled(issuer="new")
        first.sign(a_csr(key), issuer="intermediate")
        server_ca = first.server_ca.read_text()
    with Standin(tmp_path / "p") as second:
        assert second.server_ca.read_text() == server_ca
        assert customer.but(partner=second).call("/fleets").status == 200
        assert second.authorities.intermediates[0].certificate == first.authorities.intermediates[0].certificate
