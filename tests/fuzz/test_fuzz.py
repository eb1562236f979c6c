"""Parsers of foreign bytes return a result or raise a broker error, within a time limit.

`make test` tries a few hundred of each kind, always the same. `make fuzz` goes on for FUZZ_SECONDS a kind (60), from
FUZZ_SEED if that is set; a failure names the seed and the number that make its input again.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import random
import re
import resource
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
)

from broker import config
from broker.delivery import formats
from broker.errors import BrokerError
from broker.evidence.audit import Record, examine
from broker.evidence.export import exported, imported
from broker.evidence.statements import ChainRecord
from broker.issuing.leases import LeaseSigner
from broker.model.account import Account
from broker.model.finding import Finding
from broker.model.holdings import ConsumerRecord, Holding
from broker.model.lease import BundleKind, Lease
from broker.model.names import AccountName
from broker.model.proposal import LARGEST, Proposal
from broker.model.secret import Secret
from broker.partners import catalogue, document
from broker.pki import certificates, csr, keys, lint, verification
from broker.pki.gathered import Piece, gather
from broker.pki.named_values import values_in
from broker.pki.reply import read_reply
from broker.vault.documents import decoded, encoded
from tests.fuzz import hostile
from tests.fuzz.mutants import mutant
from tests.support import pki
from tests.support.accounts import NOW, with_rolled_back
from tests.support.counts import TALLY
from tests.support.credential_sets import paper
from tests.support.depth import sampled
from tests.support.replies import NEW, SENT, Desk, a_mail, bounce, waiting_account

SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "60"))
FEW: Final = 150
INTERNALS: Final = re.compile(r"DefinedByMarker|asn1|ASN\.1|Error\b|<class|object at|\b0x[0-9a-f]{6}")
MOST_MEMORY: Final = 256 * 1024  # KiB that a run may add
MOST: Final = 1500  # characters of a message
AT_MOST: Final = 10.0  # CPU seconds for one input; all take a thousandth of it, or an input keeps us busy

GUIDE: Final = catalogue.builtin("stellantis")
ROOT: Final = pki.a_ca("Root")
MIDDLE: Final = pki.a_ca("Middle", issuer=ROOT)
CHAIN: Final = [pki.a_leaf(MIDDLE), MIDDLE.certificate, ROOT.certificate]
PINNED: Final = certificates.ca_set_of(CHAIN[1:])
MZP1: Final = AccountName("mzp-1")
SIGNER: Final = LeaseSigner("k1", {"k1": Secret(bytes(32))})
WAITING: Final = waiting_account()
LEASE: Final = Lease("id", "entity", MZP1, "reports", BundleKind.DIRECT, 3, NOW, NOW + timedelta(hours=1))


@dataclass(frozen=True, slots=True)
class Target:
    """A parser, and good input to mutate."""

    read: Callable[[bytes], object]
    good: tuple[bytes, ...]


def _reply(data: bytes) -> None:
    parts = read_reply(data)
    _assert_plain(*parts.findings)
    assert len(parts.authorities) <= len(parts.certificates)
    for found in parts.certificates:
        described = certificates.describe(found)
        _assert_plain(described.subject, described.issuer, *described.alternative_names)
        certificate = certificates.certificate_of(found, parts.certificates)
        parts.for_spki(certificate.spki, partial(verification.best_path, trusted=CHAIN[1:], now=pki.NOW))
        expected = verification.Expected(GUIDE.subject, pki.LOGIN, PINNED, certificate.spki, pki.GOOD)
        _assert_plain(*verification.verify_certificate(certificate, expected, pki.NOW))
        parts.issuer_of(certificate)


def _material(data: bytes) -> None:
    for key in gather([Piece("its.key", data)], {}, lambda _: Secret("x")).keys:
        assert keys.spki_of(key.key) == key.spki


def _proposals(data: bytes) -> None:
    """What a mail proposes is bounded and printable, and its material reads as the mail did."""
    desk = Desk([WAITING])
    for one in desk.mailed(data):
        _assert_plain(*one.findings, *one.holds, one.sender, one.subject, one.source)
        assert decoded(encoded(one), Proposal, "a proposal") == one
        assert len(json.dumps(encoded(one))) < 2 * LARGEST
        assert not one.material or read_reply(one.material.encode()).certificates
        assert "PRIVATE KEY-" not in one.material
    assert not desk.imported


def _csr(data: bytes) -> None:
    parsed = csr.parse(data)
    _assert_plain(*lint.lint_csr(parsed, GUIDE.subject, GUIDE.key, pki.LOGIN), str(parsed.name))
    assert str(parsed.name) == str(csr.parse(data).name)


def _assert_plain(*said: Finding | str) -> None:
    """Nothing that a terminal acts on, nothing of a library's own, nothing without an end."""
    for one in said:
        for text in (one.message, one.hint) if isinstance(one, Finding) else (one,):
            assert text.isprintable(), text
            assert len(text) < MOST or isinstance(one, str), text[:MOST]
            assert not INTERNALS.search(text), text


def _holdings(data: bytes) -> None:
    found = gather([Piece("a file", data), Piece("stray", data, stray=True)], {}, lambda _: Secret("open"))
    assert len({key.spki for key in found.keys}) == len(found.keys)


def _values(data: bytes) -> None:
    found = values_in(data)
    assert found is None or all(found.full_name(name) == name for name in found.values)


def _profile(data: bytes) -> None:
    read = document.parse(data.decode("utf-8", "replace"), "fuzz.toml")
    assert document.from_document(document.to_document(read), "stored") == read


def _config(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        config.resolve(flags={}, environment={}, file=Path(file.name))


def _export(data: bytes) -> None:
    examine(imported(data), everything=True)


def _account(data: bytes) -> None:
    read = decoded(_json(data), Account, "account mzp-1")
    assert decoded(encoded(read), Account, "again") == read


def _consumer(data: bytes) -> None:
    decoded(_json(data), ConsumerRecord, "consumer")


def _lease(data: bytes) -> None:
    SIGNER.opened(Secret(data.decode("latin-1")), now=NOW)


def _json(data: bytes) -> Any:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}  # Vault's client hands over nothing else


def _memory() -> int:
    """Return the most memory that this process has used, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _zip(*members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, member in enumerate(members):
            archive.writestr(f"{number}.crt", member)
    return file.getvalue()


def _mails() -> Iterator[bytes]:
    for cte in ("base64", "quoted-printable"):
        inner, outer = EmailMessage(), EmailMessage()
        inner["From"], inner["To"], inner["Subject"] = "a@partner.example", "b@company.example", "x"
        inner.set_content(f"client_id: 6f9619ff-8b86\n{pki.pem(*CHAIN)}", cte=cte)
        inner.add_alternative("<p>see <a href='https://x.example'>there</a></p>", subtype="html")
        outer["From"], outer["To"] = "b@company.example", "c@company.example"
        outer.add_attachment(_zip(pki.der(CHAIN[0])), "application", "zip", filename="c.zip")
        outer.add_attachment(inner)
        yield from (inner.as_bytes(), outer.as_bytes())


def _arrived() -> tuple[bytes, ...]:
    """Return mails that arrive: replies, one with a link, and a report that a mail did not arrive."""
    text = "Your certificate expires.\nhttps://files.partner.example/x?t=1 is available until 2026-03-05\n"
    return (a_mail(NEW, text=text), a_mail(text=f"{text}{pki.LOGIN}", answers=""), bounce(SENT), *_mails())


def _decorated() -> Iterator[bytes]:
    lines = pki.pem(*CHAIN).splitlines()
    yield "\n".join(f"> {line}" for line in lines).encode()
    yield "\n".join(f"{n}: {line}" for n, line in enumerate(lines)).encode()
    yield json.dumps({"certificate": "\r\n".join(lines)}).encode()
    yield f"<html>{'<br>'.join(lines)}</html>".encode()
    yield "\n".join(lines).encode("utf-16-le")
    yield base64.b64encode(pki.der(CHAIN[0]))


def _keys() -> Iterator[bytes]:
    key = pki.a_key()
    for encoding in (Encoding.PEM, Encoding.DER):
        yield key.private_bytes(encoding, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        yield key.private_bytes(encoding, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    yield key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x"))
    certificate = certificates.certificate_of(CHAIN[0], CHAIN[1:])
    yield keys.pkcs12_bundle(pki.secret_of(key), certificate.pem, Secret("x")).reveal()


def _ber() -> bytes:
    """PKCS#7 of indefinite length throughout."""
    found = b"".join(pki.der(c) for c in CHAIN)
    oid, version = bytes.fromhex("06092a864886f70d0107"), b"\2\1\1\x31\0"
    signed = b"\x30\x80" + version + b"\x30\x80" + oid + b"\1\0\0" + b"\xa0\x80" + found + b"\0\0" + b"\x31\0" + b"\0\0"
    return b"\x30\x80" + oid + b"\2" + b"\xa0\x80" + signed + b"\0\0" * 2


def _csrs() -> tuple[bytes, ...]:
    made = csr.build(pki.secret_of(pki.a_key()), pki.GOOD, pki.RULES).encode()
    return made, base64.b64decode(b"".join(made.splitlines()[1:-1]))


def _held() -> tuple[bytes, ...]:
    key = pki.a_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    sealed = pki.a_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open"))
    return key + pki.pem(*CHAIN).encode(), sealed, _zip(key, *_csrs()), *_documents()


def _documents() -> tuple[bytes, ...]:
    manifest = (
        b"kind: Secret\ndata:\n  password: YQ==\n  k: 'YQ=='\nstringData:\n  tls.crt: |\n    a\n    b\n  n: \"x\"\n"
    )
    return manifest, b'{"kind": "Secret", "data": {"a": "YQ=="}}', b'{"data": {"data": {"k": "v", "n": 1}}}'


def _exports() -> tuple[bytes, ...]:
    entries = with_rolled_back().outbox
    return (exported(Record({entries[0].chain: ChainRecord(entries, head=None)}), NOW),)


TARGETS: Final[dict[str, Callable[[], Target]]] = {
    "a reply in DER": lambda: Target(_reply, tuple(pki.der(c) for c in CHAIN)),
    "a reply in PEM": lambda: Target(_reply, (pki.pem(*CHAIN).encode(),)),
    "what a team holds": lambda: Target(_holdings, _held()),
    "named values": lambda: Target(_values, _documents()),
    "a reply in PKCS#7": lambda: Target(
        _reply, tuple(pkcs7.serialize_certificates(CHAIN, e) for e in (Encoding.DER, Encoding.PEM))
    ),
    "a reply in a zip": lambda: Target(_reply, (_zip(*(pki.der(c) for c in CHAIN)), _zip(pki.pem(*CHAIN).encode()))),
    "a reply in a mail": lambda: Target(_reply, tuple(_mails())),
    "a mail that arrives": lambda: Target(_proposals, _arrived()),
    "a reply in BER": lambda: Target(_reply, (_ber(),)),
    "a reply in decorated text": lambda: Target(_reply, tuple(_decorated())),
    "a key": lambda: Target(_material, tuple(_keys())),
    "a CSR": lambda: Target(_csr, _csrs()),
    "a profile": lambda: Target(_profile, (catalogue.builtin_source("stellantis").encode(),)),
    "a configuration": lambda: Target(
        _config, (b'version = 1\n[vault]\naddress = "https://v"\n[bundle]\nttl = "1h"\n',)
    ),
    "an export": lambda: Target(_export, _exports()),
    "an account": lambda: Target(_account, (json.dumps(encoded(with_rolled_back())).encode(),)),
    "a consumer": lambda: Target(
        _consumer,
        (
            json.dumps(
                encoded(ConsumerRecord("e", "n", (Holding(MZP1, "reports", "direct", 1, "lease-1", NOW, NOW),)))
            ).encode(),
        ),
    ),
    "a manifest": lambda: Target(formats.parse, (formats.dump(formats.manifest_of(paper(), {})),)),
    "a lease": lambda: Target(_lease, (SIGNER.signed(LEASE).reveal().encode(),)),
}


def _mutants(target: Target, seed: int) -> Iterator[tuple[int, bytes]]:
    for number in itertools.count():
        chance = random.Random(f"{seed}/{number}")
        yield number, mutant(chance.choice(target.good), chance)


def _try(kind: str, target: Target, number: int, data: bytes) -> None:
    started = time.process_time()
    try:
        target.read(data)
    except BrokerError as error:
        _assert_plain(error.message, error.hint)
    except Exception as error:
        failure = f"{kind}, FUZZ_SEED={SEED}, number {number}: {type(error).__name__}: {error}"
        raise AssertionError(f"{failure}\n{base64.b64encode(data).decode()}") from error
    assert time.process_time() - started < AT_MOST, f"{kind}, FUZZ_SEED={SEED}, number {number} keeps us busy"


@pytest.mark.parametrize("kind", sampled(TARGETS, every=3, rest=pytest.mark.slow))
def test_good_input_is_read(kind: str) -> None:
    target = TARGETS[kind]()
    for data in target.good:
        target.read(data)


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.fuzz)], ids=["some", "all"])
@pytest.mark.parametrize("kind", ["a reply in DER", "a CSR"])
@pytest.mark.parametrize("group", hostile.GROUPS)
def test_hostile_structures_are_judged(kind: str, group: str, step: int) -> None:
    """Lies about lengths at every place, deep nesting, names that hold anything: judged, or refused."""
    target, made = TARGETS[kind](), hostile.GROUPS[group]
    good, signer = (target.good[-1], pki.Ca(CHAIN[0], pki.a_key())) if kind == "a CSR" else (target.good[0], MIDDLE)
    before = _memory()
    for number, data in enumerate(itertools.islice(made(good, signer), 0, None, step)):
        _try(f"{kind}, {group}", target, number, data)
    assert _memory() - before < MOST_MEMORY


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["a reply in DER", "a CSR"])
def test_vectors_of_the_library_are_judged(kind: str) -> None:
    """Every certificate, request and key that `cryptography` is tested with (requirements/fuzz.txt)."""
    vectors = pytest.importorskip("cryptography_vectors")
    target = TARGETS[kind]()
    files = [f for f in Path(vectors.__file__).parent.rglob("*") if f.suffix.lower() in hostile.READ]
    assert len(files) > 500
    before = _memory()
    for number, file in enumerate(files):
        _try(f"{kind}, {file.name}", target, number, file.read_bytes())
    assert _memory() - before < MOST_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_a_few_mutants_are_read_or_refused(kind: str) -> None:
    target = TARGETS[kind]()
    for number, data in itertools.islice(_mutants(target, SEED), FEW):
        _try(kind, target, number, data)


@pytest.mark.fuzz
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", TARGETS)
def test_mutants_are_read_or_refused(kind: str) -> None:
    target, until = TARGETS[kind](), time.monotonic() + SECONDS
    for number, data in _mutants(target, SEED):
        _try(kind, target, number, data)
        TALLY["mutants, each read or refused"] += 1
        if time.monotonic() > until:
            break
