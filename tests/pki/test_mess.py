"""Replies are read as mail programs, portals and people leave them; the rest of a reply is named."""

from __future__ import annotations

import base64
import gzip
import io
import json
import quopri
import tarfile
import zipfile
from collections.abc import Callable
from email.message import EmailMessage, Message
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from broker.errors import BrokerError, InputError, RefusedError
from broker.model.secret import Secret
from broker.pki import certificates, csr, keys
from broker.pki.reply import ReplyParts, read_files, read_reply
from tests.support import pki

CASES = Path(__file__).parent / "cases"
ROOT = pki.a_ca("Root")
LEAF = pki.a_leaf(ROOT)
PEM = pki.pem(LEAF)
BODY = "".join(PEM.splitlines()[1:-1])
KEY = pki.secret_of(pki.a_key())
ID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"


def codes(parts: ReplyParts) -> list[str]:
    return [finding.code for finding in parts.findings]


def a_mail(text: str = "Voilà:", *, kind: str = "plain", cte: str | None = None) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "ca@partner.example", "it@company.example", "Your certificate"
    mail["Message-ID"] = f"<{ID.upper()}@partner.example>"
    mail.set_content(text, subtype=kind, cte=cte)
    return mail


def attached(data: bytes, name: str = "c.bin", kind: str = "application/octet-stream") -> EmailMessage:
    mail = a_mail(f"client_id: {ID}")
    mail.add_attachment(data, *kind.split("/"), filename=name)
    return mail


def forwarded(inner: Message) -> EmailMessage:
    mail = a_mail("see below")
    mail.add_attachment(inner)
    return mail


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def lines(template: str) -> bytes:
    return "\n".join(template.format(line) for line in PEM.splitlines()).encode()


CASE_FILES = {
    "attached-pem.eml": (2, []),
    "docx.zip": (2, ["file.passed-over"]),
    "p12.zip": (2, ["file.passed-over"]),
    "quoted-csr-below.txt": (1, ["file.stray"]),
    "with-trust-p12.zip": (1, ["file.passed-over"]),
    "with-trusted.zip": (2, []),
    **{f"p7b-{name}": (3, []) for name in ("ber.p7b", "ber.pem", "certificate-chain-header.p7b", "windows-header.p7b")},
}

JUDGED = {  # by test_cases.py
    "dflt.csr",
    "nc-reply.pem",
    "r_any.pem",
    "r_ns.pem",
    "r_weak.pem",
    "tw-newfirst.pem",
    "tw-oldfirst.pem",
}


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir() if path.name not in JUDGED))
def test_a_case_is_read(name: str) -> None:
    parts = read_reply((CASES / name).read_bytes(), name)
    assert (len(parts.certificates), codes(parts)) == CASE_FILES.get(name, (1, []))
    assert parts.client_ids == ((ID,) if name == "attached-pem.eml" else ())


TEXTS = {
    "deeper quotes": lines(">> > {}"),
    "boxes": lines("| {}"),
    "comments": lines("# {}"),
    "slashes": lines("// {}"),
    "a diff": lines("+{}"),
    "indented": lines("\t    {}\xa0"),
    "strings of a program": lines('  "{}\\n" +'),
    "a list": lines("- '{}',"),
    "numbered": "\n".join(f"{number:4}: {line}" for number, line in enumerate(PEM.splitlines(), 1)).encode(),
    "numbered, not indented": "\n".join(f"{n}: {line}" for n, line in enumerate(PEM.splitlines())).encode(),
    "JSON": json.dumps({"certificate": PEM.replace("\n", "\r\n")}).encode(),
    "JSON of PHP": json.dumps({"certificate": PEM}).replace("/", "\\/").encode(),
    "JSON of .NET": json.dumps({"certificate": PEM}).replace("+", "\\u002B").encode(),
    "JSON without armour": json.dumps({"certificate": BODY}).encode(),
    "XML": f'<?xml version="1.0"?><KeyInfo><X509Certificate>\n{BODY}</X509Certificate></KeyInfo>'.encode(),
    "em dashes": PEM.replace("-----", "——-").encode(),
    "four dashes": PEM.replace("-----", "----").encode(),
    "blanks in the armour": PEM.replace("-----BEGIN", "----- BEGIN")
    .replace("CERTIFICATE-----", "CERTIFICATE -----")
    .encode(),
    "no END line": PEM[: PEM.index("-----END")].encode(),
    "a misspelt END line": PEM.replace("END CERTIFICATE", "END CERTIFICAT").encode(),
    "one line": f"-----BEGIN CERTIFICATE-----{BODY}-----END CERTIFICATE-----".encode(),
    "blanks for line ends": PEM.replace("\n", " ").encode(),
    "no armour, in a sentence": f"Here it is: {BODY} Best regards".encode(),
    "no armour, quoted": b"> " + BODY.encode().replace(BODY[64:65].encode(), b"\n> " + BODY[64:65].encode(), 1),
    "no padding": PEM.replace("=", "").encode(),
    "HTML": f"<html><body><p>{PEM.replace(chr(10), '<br/>')}</p></body></html>".encode(),
    "HTML, coloured": f"<!DOCTYPE html><pre><span>{PEM.replace(chr(10), '</span>&#10;<span>')}</span></pre>".encode(),
    "UTF-16 BE without BOM": PEM.encode("utf-16-be"),
    "UTF-16 with prose": f"Voilà\r\n{PEM}".encode("utf-16"),
    "bare quoted-printable": quopri.encodestring(PEM.encode()),
    "DER and a line end": pki.der(LEAF) + b"\r\n",
    "base64 of DER": base64.b64encode(pki.der(LEAF)),
    "base64 of PEM": base64.encodebytes(PEM.encode()),
    "a Kubernetes secret": f"data:\n  tls.crt: {base64.b64encode(PEM.encode()).decode()}\n  x: y\n".encode(),
    "old label": PEM.replace("CERTIFICATE", "X509 CERTIFICATE").encode(),
    "label of nothing": PEM.replace("CERTIFICATE", "PUBLIC KEY").encode(),
}


@pytest.mark.parametrize("data", TEXTS.values(), ids=TEXTS)
def test_decorated_pem_is_read(data: bytes) -> None:
    parts = read_reply(data)
    assert (parts.certificates, codes(parts)) == ((LEAF,), [])


MAILS = {
    "in the text": a_mail(PEM),
    "in base64": a_mail(PEM, cte="base64"),
    "in quoted-printable": a_mail(PEM + "é" * 90, cte="quoted-printable"),
    "in HTML": a_mail(f"<p>Voil&agrave;</p><pre>{PEM}</pre>", kind="html"),
    "PEM attached": attached(PEM.encode(), "c.pem", "text/plain"),
    "DER attached": attached(pki.der(LEAF), "c.cer", "application/pkix-cert"),
    "zip attached": attached(zipped(**{"c.pem": PEM.encode()}), "c.zip", "application/zip"),
    "mail attached as a file": attached(a_mail(PEM).as_bytes(), "it.eml"),
    "forwarded": forwarded(a_mail(PEM)),
    "forwarded twice": forwarded(forwarded(attached(PEM.encode()))),
    "quoted below": a_mail("> From: ca@partner.example\n> Subject: x\n>\n" + lines("> {}").decode()),
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mail", MAILS.values(), ids=MAILS)
def test_a_mail_is_read(mail: EmailMessage, line_end: str) -> None:
    parts = read_reply(mail.as_bytes(policy=mail.policy.clone(linesep=line_end)))
    assert parts.certificates == (LEAF,)
    assert set(parts.client_ids) <= {ID}  # of the attachments' mail, not its Message-ID


def test_a_mailbox_is_read() -> None:
    start = b"From ca@partner.example Thu Nov 26 10:00:00 2026\n"
    assert read_reply(start + a_mail().as_bytes() + b"\n\n" + start + a_mail(PEM).as_bytes()).certificates == (LEAF,)


def test_a_signed_mail_is_read() -> None:
    """The signer's certificate is no part of the reply."""
    signer = pki.a_leaf(pki.a_ca("Mail CA"), pki.a_key("signer"), "ca@partner.example")
    builder = pkcs7.PKCS7SignatureBuilder().set_data(a_mail(PEM).as_bytes())
    builder = builder.add_signer(signer, pki.a_key("signer"), SHA256())
    for encoding, options in (
        (Encoding.SMIME, [pkcs7.PKCS7Options.DetachedSignature]),
        (Encoding.SMIME, []),
        (Encoding.DER, []),
    ):
        assert read_reply(builder.sign(encoding, options)).certificates == (LEAF,)


def test_headers_of_a_mail_are_no_text() -> None:
    mail = a_mail(PEM)
    mail["X-Note"] = f"client_id: {ID}"
    assert read_reply(mail.as_bytes()).client_ids == ()


def test_links_are_named_not_followed() -> None:
    page = a_mail('<a href="https://user@portal.partner.example:8443/get?x=1">here</a>', kind="html")
    with pytest.raises(InputError, match=r"it links to 'portal\.partner\.example:8443'; nothing was fetched") as caught:
        read_reply(page.as_bytes())
    assert "download" in caught.value.hint
    assert codes(read_reply(a_mail(f"client_id: {ID}\nhttps://portal.example/x").as_bytes())) == ["reply.link"]


def a_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("c.pem")
        entry.size = len(PEM)
        archive.addfile(entry, io.BytesIO(PEM.encode()))
    return file.getvalue()


def enveloped() -> bytes:
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(PEM.encode()).add_recipient(LEAF)
    return builder.encrypt(Encoding.DER, [])


NAMED: dict[str, tuple[bytes, str]] = {
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
    "rar": (b"Rar!\x1a\x07\1\0", "a RAR archive"),
    "gz": (gzip.compress(PEM.encode()), "a gzip file"),
    "tar": (a_tar(), "a tar archive"),
    "msg": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an Outlook message"),
    "tnef": (b"\x78\x9f\x3e\x22\0\0", "winmail.dat"),
    "pdf": (b"%PDF-1.7\n" + PEM.encode(), "a PDF document"),
    "jks": (b"\xfe\xed\xfe\xed\0\0\0\2", "a JKS, an old Java key store"),
    "jceks": (b"\xce\xce\xce\xce\0\0\0\2", "a JCEKS, an old"),
    "docx": (zipped(**{"[Content_Types].xml": b"<x/>", "word/document.xml": b"<x/>"}), "an Office document"),
    "enveloped": (enveloped(), "an encrypted message"),
    "damaged": (PEM.replace("MII", "M*I", 1).encode(), "is not base64|damaged"),
    "encrypted zip": (zipped(x=PEM.encode()).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"), "encrypted"),
}


@pytest.mark.parametrize(("data", "words"), NAMED.values(), ids=NAMED)
def test_a_file_of_another_kind_is_named(data: bytes, words: str) -> None:
    """Alone it is refused; beside a good certificate that is used."""
    with pytest.raises(BrokerError, match=words) as caught:
        read_reply(data)
    assert caught.value.hint
    for beside in (
        read_files({"good.pem": PEM.encode(), "other": data}),
        read_files({"other": data, "good.pem": PEM.encode()}),
        read_reply(zipped(**{"other": data, "good.pem": PEM.encode()})),
        read_reply(_mail_with(data).as_bytes()),
    ):
        assert beside.certificates == (LEAF,)
        assert codes(beside) == ["file.passed-over"]
        assert "'other' is not used" in beside.findings[0].message


def _mail_with(data: bytes) -> EmailMessage:
    mail = attached(data, "other")
    mail.add_attachment(PEM.encode(), "application", "octet-stream", filename="good.pem")
    return mail


@pytest.mark.parametrize(
    "make",
    [
        KEY.reveal,
        keys.pem(KEY).reveal,
        lambda: keys.pem(KEY).reveal().replace(b"PRIVATE KEY", b"CERTIFICATE"),
        lambda: a_mail(keys.pem(KEY).reveal().decode()).as_bytes(),
        lambda: base64.b64encode(KEY.reveal()),
    ],
)
def test_a_private_key_is_called_out(make: Callable[[], bytes]) -> None:
    with pytest.raises(RefusedError, match="holds a private key") as caught:
        read_reply(make())
    assert "new key" in caught.value.hint
    beside = read_files({"c.pem": PEM.encode(), "k": make()})
    assert codes(beside) == ["reply.private-key"]
    assert BODY[100:140] not in repr(beside.findings)


def test_an_encrypted_key_is_called_out() -> None:
    made = pki.run("openssl", "rsa", "-aes256", "-traditional", "-passout", "pass:x", stdin=keys.pem(KEY).reveal())
    assert codes(read_reply(PEM.encode() + made)) == ["reply.private-key"]


def test_ones_own_request_is_named() -> None:
    with pytest.raises(InputError, match="certificate signing request: your own"):
        read_reply(csr.build(KEY, pki.GOOD, pki.RULES).encode())


def test_names_are_shown_escaped() -> None:
    hostile = "\x1b[2J\u202egpj.exe"
    parts = read_files({"c.pem": PEM.encode(), hostile: b"%PDF-"})
    (finding,) = parts.findings
    assert finding.message.isprintable()
    assert "\\x1b[2J\\u202e" in finding.message


def test_hints_name_files_that_can_be_typed() -> None:
    store = keys.pkcs12_bundle(KEY, certificates.certificate(PEM).pem, Secret("x")).reveal()
    for name, shown in (("a b.p12", "-in 'a b.p12' "), ("\x1b[2J.p12", "-in FILE ")):
        assert shown in read_files({"c.pem": PEM.encode(), name: store}).findings[0].hint


def test_xml_without_a_certificate_is_named() -> None:
    with pytest.raises(InputError, match="XML without a certificate"):
        read_reply(b'<?xml version="1.0"?><KeyInfo/>')


def test_pictures_of_a_mail_are_no_error() -> None:
    mail = attached(b"\x89PNG\r\n\x1a\n\0", "logo.png", "image/png")
    assert codes(read_reply(mail.as_bytes())) == ["file.stray"]
