"""Signing requests on the command line: drafted, sent, superseded, cancelled; and CSRs made by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.compose.graph import Wiring
from tests.support.cli_harness import CliHarness
from tests.support.partner import a_csr
from tests.support.system import LOGIN

pytestmark = pytest.mark.slow

KEY = rsa.generate_private_key(65537, 2048)
REQUEST = {"number", "key", "spki", "csr", "drafted_at", "submissions", "closed", "closed_at"}


def test_request_is_drafted_once(harness: CliHarness) -> None:
    harness.put("added")
    first = harness.ok("csr new acme")
    assert first.out.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert harness.ok("csr new acme").out == first.out
    assert harness.ok("csr show acme").out == first.out
    harness.ok("csr new acme --out acme.csr")
    assert (harness.home / "acme.csr").read_text() == first.out
    facts = harness.ok("csr show acme -o json").json
    assert set(facts) >= REQUEST - {"closed_at"}
    assert (facts["number"], facts["key"], facts["closed"]) == (1, "kv:1", None)
    assert "findings" in harness.ok("csr new acme -o json").json
    assert harness.ok("csr new acme --out again.csr -o json").json["csr"] == first.out
    assert (harness.home / "again.csr").read_text() == first.out


def test_linter_accepts_our_drafts(harness: CliHarness) -> None:
    harness.put("requested")
    harness.ok("csr new acme --out acme.csr")
    assert harness.ok(f"csr lint acme.csr --login {LOGIN}").out.endswith("good\n")
    assert harness.ok("csr lint - -o json", input=(harness.home / "acme.csr").read_bytes()).json == {
        "subject": str(harness.account.subject),
        "success": True,
        "findings": [],
    }


def test_supersede_makes_a_new_key(harness: CliHarness) -> None:
    harness.put("requested")
    old = harness.ok("csr show acme -o json").json
    new = harness.ok("csr new acme --supersede --yes -o json").json
    assert (new["number"], new["key"]) == (2, "kv:2")
    assert new["spki"] != old["spki"]
    closed = harness.ok("csr show acme --number 1 -o json").json
    assert (closed["closed"], closed["spki"]) == ("superseded", old["spki"])
    assert not any(harness.saved.system.vault.admin.versions("keys/acme/1").values())
    assert any(harness.saved.system.vault.admin.versions("keys/acme/2").values())
    assert harness.ok("csr new acme --supersede --yes -o json").json["number"] == 3


@pytest.mark.parametrize(
    ("state", "line", "lost"),
    [
        ("requested", "csr cancel acme", "its key is destroyed, and the partner's answer to it becomes useless"),
        ("requested", "csr refused acme --reason no", "its key is destroyed, and the partner's answer"),
        ("requested", "csr new acme --supersede", "its key is destroyed, and the partner's answer"),
        (
            "candidate",
            "rotation reject acme --generation 1 --reason x",
            ": the partner's answer to it becomes useless",
        ),
    ],
)
def test_partners_answer_is_not_lost_unasked(harness: CliHarness, state: str, line: str, lost: str) -> None:
    harness.put("requested")
    harness.ok("csr submit acme --to desk@partner.example --reference INC-7")
    if state == "candidate":
        harness.ok(f"cert import acme reply.zip {' '.join(harness.saved.system.accepting())}")
    before = harness.look()
    refused = harness.run(line)
    (sent,) = harness.account.requests[0].submissions
    assert refused.code == 2
    assert f"request 1 of acme (sent {sent.at:%F %TZ} to desk@partner.example, reference INC-7)" in refused.err
    assert lost in refused.err
    assert "--yes" in refused.err
    assert harness.look() == before
    harness.ok(f"{line} --yes")


def test_unsent_request_is_asked_about_too(harness: CliHarness) -> None:
    """`csr new` printed the CSR: somebody may have mailed it by hand."""
    harness.put("requested")
    refused = harness.run("csr new acme --supersede")
    assert refused.code == 2
    assert "request 1 of acme (not recorded as sent)" in refused.err
    harness.assert_unchanged()


def test_supersede_without_a_request_begins(harness: CliHarness) -> None:
    harness.put("added")
    assert harness.ok("csr new acme --supersede --yes -o json").json["number"] == 1


@pytest.mark.parametrize(
    ("line", "closed"), [("csr cancel acme", "cancelled"), ("csr refused acme --reason 'wrong O'", "rejected")]
)
def test_reply_to_a_closed_request_is_named(harness: CliHarness, line: str, closed: str) -> None:
    harness.put("requested")
    assert f"1 of acme is {closed}\n" in harness.ok(f"{line} --yes").err
    assert f"is {closed} already: nothing to do\n" in harness.ok(f"{line} --yes").err
    late = harness.run("cert import acme reply.zip")
    assert late.code == 6
    assert f"answers signing request 1 of acme, which was {closed}" in late.err
    harness.ok("csr new acme")
    assert f"which was {closed}" in harness.run("cert import acme reply.zip").err


def test_mail_draft_has_the_csr_and_a_date(harness: CliHarness) -> None:
    harness.put("requested")
    harness.ok("csr submit acme --reference T-1")
    mail = message_from_bytes((harness.home / "acme-1.eml").read_bytes())
    assert mail["To"] == "desk@partner.example"
    assert any(b"CERTIFICATE REQUEST" in (part.get_payload(decode=True) or b"") for part in mail.walk())
    (sent,) = harness.ok("csr show acme -o json").json["submissions"]
    assert (sent["via"], sent["to"], sent["reference"]) == ("eml", "desk@partner.example", "T-1")
    assert sent["message_id"] == mail["Message-ID"]
    again = harness.ok("csr submit acme --out - --to other@partner.example")
    assert message_from_bytes(again.out.encode())["Message-ID"] == mail["Message-ID"]
    assert "sent" in harness.ok("csr show acme").err


def test_a_known_key_is_replaced_without_waiting(harness: CliHarness) -> None:
    harness.put("promoted")
    asked = harness.ok("csr new acme --compromised --serving suspend --reason 'stolen laptop'").err
    assert "bundles are not issued" in asked
    assert harness.account.suspended
    harness.ok("csr submit acme --out urgent.eml")
    mail = message_from_bytes((harness.home / "urgent.eml").read_bytes())
    serial = harness.account.certificates[0].serial
    assert any(f"serial number {serial} is known".encode() in (p.get_payload(decode=True) or b"") for p in mail.walk())
    (harness.home / "new.zip").write_bytes(harness.saved.system.reply("acme").read_bytes())
    harness.ok("cert import acme new.zip")
    harness.ok("rotation promote acme")
    harness.ok("rotation retire acme --generation 1")
    (status,) = harness.ok("status acme -o json").json
    assert (status["state"], "COMPROMISED" in status["message"]) == ("stopped", True)
    assert "retired (compromised)" in harness.ok("rotation status acme").out
    harness.ok("rotation revoked acme --generation 1 --reason 'mail of 2 March'")
    (status,) = harness.ok("status acme -o json").json
    assert (status["state"], status["hint"]) == ("suspended", "broker account resume acme")
    assert "certificate-revoked" in harness.ok("evidence show acme").out
    harness.ok("evidence verify acme")


def test_a_request_with_the_same_key_is_answered(harness: CliHarness) -> None:
    """The certificate of the old request has the same key, and is no answer to the new one."""
    harness.put("reusable")
    old, first = harness.ok("csr new acme --reuse-key -o json").json, harness.account.generation(1)
    assert (old["number"], old["key"]) == (2, "kv:1")
    earlier = harness.saved.reply("own").read_bytes()
    harness.put("reusable")
    harness.ok("csr new acme --reuse-key")
    (harness.home / "earlier.zip").write_bytes(earlier)
    assert harness.ok("cert import acme earlier.zip -o json").json["generation"] == 1
    assert harness.account.open_request
    (harness.home / "new.zip").write_bytes(harness.saved.system.reply("acme").read_bytes())
    assert harness.ok("cert import acme new.zip -o json").json["generation"] == 2
    harness.ok("rotation promote acme")
    harness.ok("rotation retire acme --generation 1")
    current = harness.account.current
    assert current
    assert current.parts.key == first.parts.key
    harness.ok("rotation canary acme")
    harness.ok("evidence verify acme")


def test_closed_request_leaves_no_mail(harness: CliHarness) -> None:
    """Its key is destroyed: a draft that lay there would be sent one day."""
    harness.put("requested")
    cancelled = meanwhile(lambda: harness.ok("csr cancel acme --yes"))
    ended = harness.run("csr submit acme --out late.eml", wiring=cancelled)
    assert ended.code == 6
    assert "was cancelled" in ended.err
    assert not (harness.home / "late.eml").exists()
    harness.ok("csr new acme")
    cancelled = meanwhile(lambda: harness.ok("csr cancel acme --yes"))
    assert not harness.run("csr submit acme --out -", wiring=cancelled).out


def test_unwritten_mail_is_the_same_later(harness: CliHarness) -> None:
    harness.put("requested")
    noted = meanwhile(lambda: (harness.home / "there").rename(harness.home / "elsewhere"))
    (harness.home / "there").mkdir()
    assert harness.run("csr submit acme --out there/acme.eml", wiring=noted).code == 2
    (sent,) = harness.account.requests[0].submissions
    for name in ("acme.eml", "again.eml"):
        harness.ok(f"csr submit acme --out {name}")
        mail = message_from_bytes((harness.home / name).read_bytes())
        assert mail["Message-ID"] == sent.message_id
        assert parsedate_to_datetime(mail["Date"]) == sent.at.replace(microsecond=0)
    assert harness.account.requests[0].submissions == (sent,)


def meanwhile(act: Callable[[], object]) -> Wiring:
    """Return a wiring by which somebody acts when the account was read: that is when a submission asks for the time."""
    todo = [act]

    def clock() -> datetime:
        if todo:
            todo.pop()()
        return datetime.now(UTC)

    return Wiring(clock=clock)


def test_request_sent_by_hand_is_noted(harness: CliHarness) -> None:
    harness.put("requested")
    at = (datetime.now(UTC) - timedelta(seconds=1)).isoformat(timespec="milliseconds")
    facts = harness.ok(f"csr submit acme --sent-at {at} --reference INC-7 --to desk@partner.example -o json").json
    (sent,) = facts["submissions"]
    assert (sent["via"], sent["reference"], sent["to"]) == ("manual", "INC-7", "desk@partner.example")
    assert datetime.fromisoformat(sent["at"]) == datetime.fromisoformat(at)


PORTAL = """
name = "portal"
title = "A partner with a portal"
environments.production.base_url = "https://api.own.example/v1"
[submission]
how = "portal"
url = "https://portal.own.example/csr"
checklist = ["choose the contract", "note the ticket number"]
"""


def test_a_portal_is_confirmed_by_a_person(harness: CliHarness) -> None:
    harness.put("empty")
    harness.ok("partner add -", input=PORTAL.encode())
    harness.ok("account add depot --profile portal --login depot --subject CN=depot")
    harness.ok("csr new depot")
    ended = harness.run("csr submit depot")
    assert (ended.code, "pass --yes to confirm" in ended.err) == (2, True)
    assert "https://portal.own.example/csr" in ended.err
    assert "[ ] note the ticket number" in ended.err
    (sent,) = harness.ok("csr submit depot --reference T-7 --yes -o json").json["submissions"]
    assert (sent["via"], sent["to"], sent["reference"]) == ("portal", "https://portal.own.example/csr", "T-7")


def test_sending_may_be_dated_by_day(harness: CliHarness) -> None:
    harness.put("requested")
    request = harness.account.open_request
    assert request
    for _ in range(2):
        harness.ok(f"csr submit acme --sent-at {request.drafted_at:%F}")
    (sent,) = harness.ok("csr show acme -o json").json["submissions"]
    assert datetime.fromisoformat(sent["at"]) == request.drafted_at


def test_strangers_csr_drives_no_terminal(harness: CliHarness) -> None:
    evil = "x\x1b]0;y\x07\x9b2J\u202e\ngood"
    made = a_csr(KEY, der=False, O=evil)
    for output in ("table", "json"):
        ended = harness.run(f"csr lint - -o {output}", input=made)
        assert ended.code == 6
        shown = ended.out + ended.err
        assert all(c.isprintable() or c == "\n" for c in shown), shown
        assert "good" not in ended.out.splitlines()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another login": ({"CN": "MZP9999999"}, "subject.cn"),
    "the guide's own slip": ({"OU": "Programs Partner"}, "subject.ou"),
    "no mail address": ({"emailAddress": ""}, "subject.email"),
    "no organisation": ({"O": ""}, "subject.o."),
}


@pytest.mark.parametrize("changes", BAD)
def test_handmade_csr_is_judged_by_field(harness: CliHarness, changes: str) -> None:
    harness.put("added")
    fields, code = BAD[changes]
    made = a_csr(KEY, der=False, **fields)
    ended = harness.run(f"csr lint - --login {LOGIN} -o json", input=made)
    assert ended.code == 6
    assert ended.json["success"] is False
    found = [f for f in ended.json["findings"] if f["severity"] == "error"]
    assert any(f["code"].startswith(code) for f in found), found
    assert all(f["message"] and f["hint"] for f in found)


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256R1())], ids=["short", "elliptic"]
)
def test_csr_with_an_unfit_key_is_refused(harness: CliHarness, key: object) -> None:
    harness.put("added")
    ended = harness.run("csr lint -", input=a_csr(key))
    assert ended.code == 6
    assert "refused" in ended.out
    assert "key" in ended.out


def test_changed_csr_is_refused(harness: CliHarness) -> None:
    harness.put("added")
    der = bytearray(a_csr(KEY, der=True))
    der[-1] ^= 1
    assert harness.run("csr lint -", input=bytes(der)).code == 6


@pytest.mark.peer("openssl")
def test_what_openssl_makes_is_judged(harness: CliHarness, tmp_path: Path) -> None:
    harness.put("added")
    subject = f"/C=FR/ST=Paris/L=Paris/O=ACME/OU=Programs Partners/CN={LOGIN}/emailAddress=a@acme.example"
    command = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", str(tmp_path / "k"), "-utf8"]
    made = subprocess.run([*command, "-subj", subject], capture_output=True, check=True).stdout
    assert harness.ok(f"csr lint - --login {LOGIN}", input=made).out.endswith("good\n")
    made = subprocess.run([*command, "-subj", "/C=FR/CN=x"], capture_output=True, check=True).stdout
    assert harness.run(f"csr lint - --login {LOGIN}", input=made).code == 6


@pytest.mark.slow
@pytest.mark.peer("keytool")
def test_what_keytool_makes_is_judged(harness: CliHarness, tmp_path: Path) -> None:
    harness.put("added")
    name = f"EMAILADDRESS=a@acme.example, CN={LOGIN}, OU=Programs Partners, O=ACME, L=Paris, ST=Paris, C=FR"
    store = ["-keystore", str(tmp_path / "s"), "-storepass", "changeit", "-alias", "a"]
    new = ["keytool", "-genkeypair", "-keyalg", "RSA", "-keysize", "2048", "-dname", name, *store]
    subprocess.run(new, capture_output=True, check=True)
    made = subprocess.run(["keytool", "-certreq", *store], capture_output=True, check=True).stdout
    assert harness.run(f"csr lint - --login {LOGIN}", input=made).code == 0
    assert harness.run("csr lint - --login MZP7777777", input=made).code == 6


def test_hashes_are_those_of_the_profile(harness: CliHarness) -> None:
    harness.put("added")
    from cryptography import x509

    weak = x509.load_pem_x509_csr(a_csr(KEY))
    signed = x509.CertificateSigningRequestBuilder().subject_name(weak.subject).sign(KEY, hashes.SHA384())
    from cryptography.hazmat.primitives.serialization import Encoding

    ended = harness.run("csr lint - -o json", input=signed.public_bytes(Encoding.PEM))
    assert any("digest" in f["code"] or "signature" in f["code"] for f in ended.json["findings"]), ended.out
