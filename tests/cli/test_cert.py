"""Replies on the command line: every form, accepted by a person, stored whole or not at all."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from partner_standin import Standin
from partner_standin.reply import Reply

from tests.support import pki
from tests.support.cli_harness import CliHarness
from tests.support.system import LOGIN, PASSWORD

pytestmark = pytest.mark.slow

IMPORTED = {"account", "generation", "stage", "not_after", "client_ids", "findings"}


def answer(harness: CliHarness, **options: str) -> Reply:
    request = harness.account.open_request
    assert request
    return harness.partner.sign(request.csr, **options)


def accepting(harness: CliHarness) -> str:
    return " ".join(harness.saved.system.accepting())


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def zipped(*files: tuple[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return made.getvalue()


FORMS: dict[str, Callable[[CliHarness, Reply], bytes]] = {
    "the desk's own zip": lambda harness, reply: reply.zip(),
    "PEM, one after the other": lambda harness, reply: "".join((reply.certificate, *cas(harness))).encode(),
    "PEM with Windows line ends": lambda harness, reply: (
        "".join((reply.certificate, *cas(harness))).replace("\n", "\r\n").encode()
    ),
    "the desk's own mail": lambda harness, reply: reply.mail("https://desk.partner.example/r/1"),
    "PEM in the text of a mail": lambda harness, reply: (
        f"Hello,\n\nhere:\n{reply.certificate}\n{''.join(cas(harness))}\nBye".encode()
    ),
    "a zip of DER files": lambda harness, reply: zipped(
        ("client.cer", der(reply.certificate)), *((f"{n}.crt", der(ca)) for n, ca in enumerate(cas(harness)))
    ),
}


def cas(harness: CliHarness) -> list[str]:
    authorities = harness.partner.authorities
    return [authorities.issuing[-1].pem, authorities.server.pem]


@pytest.mark.parametrize("form", FORMS)
def test_reply_in_any_form_is_a_candidate(harness: CliHarness, form: str) -> None:
    harness.put("requested")
    data = FORMS[form](harness, answer(harness))
    facts = harness.ok(f"cert import acme - {accepting(harness)} -o json", input=data).json
    assert set(facts) == IMPORTED
    assert (facts["account"], facts["generation"], facts["stage"]) == ("acme", 1, "candidate")
    assert harness.ok("rotation status acme -o json").json["generations"][0]["key"] == "kv:1"


def test_files_and_a_directory_are_one_reply(harness: CliHarness, tmp_path: Path) -> None:
    """One's own CSR and key among them are named, and not stored."""
    harness.put("requested")
    reply = answer(harness)
    (tmp_path / "cas").mkdir()
    for number, ca in enumerate(cas(harness)):
        (tmp_path / "cas" / f"{number}.pem").write_text(ca)
    (tmp_path / "cas" / "guide.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "its.pem").write_text(pki.run("openssl", "genrsa", "2048").decode())
    line = f"cert import acme - {tmp_path}/cas {tmp_path}/its.pem {accepting(harness)} -o json"
    facts = harness.ok(line, input=reply.certificate.encode()).json
    assert facts["stage"] == "candidate"
    assert {f["code"] for f in facts["findings"]} >= {"file.passed-over", "reply.private-key"}


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("cert inspect {}/empty", 2, "empty holds no file"),
        ("cert inspect reply.zip {}/large", 2, "large has more than"),
        ("cert import acme - -", 2, "standard input is named twice"),
    ],
)
def test_unusable_names_are_refused(harness: CliHarness, tmp_path: Path, line: str, code: int, words: str) -> None:
    """A sparse file of a gigabyte costs no more than its first part."""
    harness.put("requested")
    (tmp_path / "empty").mkdir()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    ended = harness.run(line.format(tmp_path))
    assert (ended.code, words in ended.err) == (code, True)


def test_der_is_enough_under_a_pinned_ca(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.ok("csr new acme")
    facts = harness.ok("cert import acme - -o json", input=der(answer(harness).certificate)).json
    assert (facts["generation"], facts["stage"]) == (2, "candidate")


def test_repeated_reply_changes_nothing(harness: CliHarness) -> None:
    harness.put("candidate")
    before = harness.look()
    assert harness.ok("cert import acme reply.zip -o json").json["generation"] == 1
    assert harness.look() == before


def test_client_id_needs_its_application(harness: CliHarness) -> None:
    harness.put("requested")
    reply = answer(harness)
    shown = harness.ok(f"cert import acme - {accepting(harness)}", input=reply.zip())
    assert f"broker app set acme/reporting --client-id {reply.client_id}" in shown.err
    assert harness.ok("app list acme -o json").json == [{"name": "reporting", "client_id": "", "rejected_at": None}]
    harness.ok("cert import acme - --client-id-for reporting", input=reply.zip())
    assert harness.ok("app list acme -o json").json[0]["client_id"] == reply.client_id


def test_unknown_ca_is_shown_and_not_stored(harness: CliHarness) -> None:
    harness.put("requested")
    before = harness.look().documents
    ended = harness.run("cert import acme - -o json", input=answer(harness).zip())
    assert ended.code == 6
    assert ended.json["code"] == "refused"
    shown = ended.err.replace(":", "").lower()
    assert str(harness.partner.described()["issuing_ca_sha256"]) in shown
    assert harness.look().documents == before


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("desk-wrong-key", "has no certificate for the key of this request"),
        ("desk-wrong-subject", "the reply for acme is refused"),
    ],
)
def test_wrong_replies_are_refused(harness: CliHarness, fault: str, says: str) -> None:
    harness.put("promoted")
    harness.ok("csr new acme")
    harness.partner.faults.apply(fault)
    assert_import_refused(harness, answer(harness), says)


def test_an_expired_reply_is_refused(harness: CliHarness) -> None:
    harness.put("promoted")
    harness.ok("csr new acme")
    reply = answer(harness, not_before="-2h", lifetime="-1h")
    assert_import_refused(harness, reply, "expired")


def test_a_reply_by_another_ca_is_refused(harness: CliHarness, tmp_path: Path) -> None:
    """The other CA is another stand-in's: the harness shares its own among all tests."""
    harness.put("promoted")
    harness.ok("csr new acme")
    request = harness.account.open_request
    assert request
    with Standin(tmp_path, accounts={LOGIN: PASSWORD}) as other:
        assert_import_refused(harness, other.sign(request.csr), "a CA that is not accepted")


def assert_import_refused(harness: CliHarness, reply: Reply, says: str) -> None:
    before = harness.look().documents
    ended = harness.run("cert import acme -", input=reply.zip())
    assert ended.code == 6
    assert says in ended.err
    assert harness.look().documents == before


def test_inspect_needs_no_vault(harness: CliHarness) -> None:
    harness.put("requested")
    facts = harness.ok("cert inspect reply.zip -o json", env={"VAULT_ADDR": "unix:///nowhere"}).json
    assert set(facts) == {"certificates", "client_ids", "findings"}
    assert {c["is_ca"] for c in facts["certificates"]} == {True, False}
    assert len(facts["client_ids"]) == 1
    text = harness.ok("cert inspect reply.zip").out
    assert text.count("SHA-256") == len(facts["certificates"])
    assert facts["client_ids"][0] in text


def test_subject_is_escaped_for_a_terminal(harness: CliHarness) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    harness.put("requested")
    key, now = rsa.generate_private_key(65537, 2048), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil\x1b[2J\nhint: --accept-ca 00")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    data = made.public_bytes(Encoding.PEM)
    for line in ("cert inspect -", "cert import acme -"):
        ended = harness.run(line, input=data)
        assert "\x1b" not in ended.out + ended.err
        assert not [
            line for line in (ended.out + ended.err).splitlines() if line.strip().startswith("hint: --accept-ca 00")
        ]


def test_base64_of_no_certificate_is_named(harness: CliHarness) -> None:
    harness.put("requested")
    junk = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(bytes(300)) + b"\n-----END CERTIFICATE-----\n"
    ended = harness.run("cert inspect -", input=junk)
    assert ended.code in (2, 6)
    assert "fault in the broker" not in ended.err


def test_hint_accepts_the_ca_as_typed(harness: CliHarness, tmp_path: Path) -> None:
    """The command of the hint is the one that was typed, and works."""
    harness.put("requested")
    (harness.home / "a reply.zip").write_bytes(answer(harness).zip())
    refused = harness.run("cert import acme 'a reply.zip' --client-id-for reporting")
    assert refused.code == 6
    (command,) = re.findall(r"then: broker (cert import .*)", refused.err)
    assert command.startswith("cert import acme 'a reply.zip' --client-id-for reporting --accept-ca ")
    harness.ok(command)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("account show acne", "acme"),
        ("csr new acmee", "acme"),
        ("app set acme/reprting --client-id x", "reporting"),
    ],
)
def test_unknown_name_is_guessed(harness: CliHarness, line: str, meant: str) -> None:
    harness.put("promoted")
    refused = harness.run(line)
    assert refused.code == 2
    assert f"did you mean {meant}?" in refused.err


def test_a_finding_is_accepted_with_a_reason(harness: CliHarness) -> None:
    harness.put("requested")
    reply = answer(harness, purpose="server").zip()
    line = f"cert import acme - {accepting(harness)}"
    refused = harness.run(line, input=reply)
    assert refused.code == 6
    assert "--accept certificate.purpose --reason TEXT" in refused.err
    harness.ok(f"{line} --accept certificate.purpose --reason 'the desk says so'", input=reply)
    assert "finding-accepted" in harness.ok("evidence show acme").out
    harness.ok("evidence verify acme")
