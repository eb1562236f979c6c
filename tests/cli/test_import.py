"""Accounts that exist already: imported whole or piece by piece, from wherever their sets lie."""

from __future__ import annotations

import base64
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from broker.compose.graph import Wiring
from broker.model.role import Role
from broker.vault.connection import Phase
from tests.cli.test_one_role import only
from tests.support.cli_harness import CliHarness
from tests.support.console import inside
from tests.support.outside import OutsideSet, made_outside, zipped
from tests.support.system import PASSWORD, Ended
from tests.support.terminal import Terminal
from tests.support.vault import token_of

pytestmark = pytest.mark.slow

PASSPHRASE: Final = "of the key"
CLIENT: Final = "--client-id-for reporting"


@pytest.fixture
def outside(harness: CliHarness) -> OutsideSet:
    """A set that the team holds outside; the vault knows nothing of it."""
    harness.put("empty")
    return harness.saved.outside


def new(harness: CliHarness) -> str:
    """Return the options of an import that adds its account."""
    accepting = " ".join(harness.saved.system.accepting())
    return f"--environment stand-in --base-url {harness.partner.api_url} --yes {accepting}"


def given(harness: CliHarness, **files: bytes) -> None:
    for name, content in files.items():
        (harness.home / name.replace("_", ".")).write_bytes(content)


def imported(harness: CliHarness, line: str) -> Ended:
    """Import a whole set, which becomes current."""
    done = harness.ok(f"account import acme {line} {new(harness)} -o json")
    assert (done.json["stage"], harness.account.current is not None) == ("current", True)
    return done


def test_a_whole_set_becomes_current(harness: CliHarness, outside: OutsideSet) -> None:
    done = imported(harness, f"outside.zip {CLIENT} --held-by web-1").json
    assert (done["account"], done["new"], done["generation"]) == ("acme", True, 1)
    assert done["left_behind"] == [{"place": "outside.zip", "removal": "shred -u outside.zip"}]
    account = harness.account
    assert (account.login, account.password) == ("MZP0000001", 1)
    assert str(account.subject).startswith("C=FR, ST=Ile-de-France, L=Paris, O=Société Exemple, OU=Programs Partners")
    assert (account.requests[0].imported, account.requests[0].held_by) == (True, ("web-1",))
    assert account.applications[0].client_id == outside.client_id
    harness.ok("evidence verify acme")
    (known,) = [f for f in harness.run("doctor -o json").json["findings"] if f["code"] == "account.known-outside"]
    assert known["message"] == "acme: its key was imported, and is known outside, by web-1"
    (drafted,) = [e for e in harness.ok("evidence show acme -o json").json if e["what"] == "request-drafted"]
    assert drafted["facts"]["origin"] == "imported, known outside"


def test_twice_changes_nothing(harness: CliHarness, outside: OutsideSet) -> None:
    line = f"outside.zip {CLIENT} --held-by web-1"
    imported(harness, line)
    before = harness.look().documents
    assert imported(harness, line).json["steps"] == []
    assert "nothing was left to do" in harness.ok(f"account import acme {line} {new(harness)}").err
    assert harness.look().documents == before


def test_dry_run_shows_and_stores_nothing(harness: CliHarness, outside: OutsideSet) -> None:
    shown = harness.ok(f"account import acme outside.zip {CLIENT} {new(harness)} --dry-run -o json").json
    assert {row["what"] for row in shown["found"]} == {"key", "certificate", "CA", "login", "password", "client_id"}
    assert [step.split()[0] for step in shown["steps"]] == ["add", "store", "set", "adopt", "verify", "try"]
    assert (shown["stored"], shown["generation"]) == (False, None)
    spkis = {row["spki"] for row in shown["found"] if row["what"] in ("key", "certificate")}
    assert len(spkis) == 1
    harness.assert_unchanged()


def test_a_new_account_is_confirmed(harness: CliHarness, outside: OutsideSet) -> None:
    ended = harness.run(f"account import acme outside.zip {CLIENT} {new(harness).replace('--yes', '')}")
    assert ended.code == 2
    assert "error: Add account acme, stellantis stand-in at https://" in ended.err
    assert ": login MZP0000001, subject C=FR" in ended.err
    assert "stdin is not a terminal" in ended.err
    harness.assert_unchanged()


def as_directory(harness: CliHarness, outside: OutsideSet) -> str:
    (harness.home / "set").mkdir()
    for name, content in outside.files.items():
        (harness.home / "set" / name).write_bytes(content)
    return f"set {CLIENT}"


def key_store(outside: OutsideSet, alias: bytes) -> bytes:
    key, leaf = load_pem_private_key(outside.key, None), x509.load_pem_x509_certificate(outside.certificate)
    cas, sealing = x509.load_pem_x509_certificates(outside.cas), BestAvailableEncryption(PASSPHRASE.encode())
    return pkcs12.serialize_key_and_certificates(alias, key, leaf, cas, sealing)  # type: ignore[arg-type]  # it is RSA


def as_key_store(harness: CliHarness, outside: OutsideSet) -> str:
    given(harness, store_jks=key_store(outside, b"mzp"), passphrase=PASSPHRASE.encode(), password=PASSWORD.encode())
    return f"store.jks --passphrase-file passphrase --password-file password {CLIENT}={outside.client_id}"


def as_json(harness: CliHarness, outside: OutsideSet) -> str:
    fields = {"key": outside.key, "crt": outside.certificate + outside.cas, "pass": PASSWORD.encode()}
    given(harness, set_json=json.dumps({"data": {"data": {n: v.decode() for n, v in fields.items()}}}).encode())
    names = "--map tls.key=key --map tls.crt=crt --map password=data.data.pass"
    return f"set.json {names} {CLIENT}={outside.client_id}"


def as_manifest(harness: CliHarness, outside: OutsideSet) -> str:
    data = "".join(f"  {n}: {base64.b64encode(v).decode()}\n" for n, v in outside.files.items())
    given(harness, secret_yaml=f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: acme\ndata:\n{data}".encode())
    return f"secret.yaml {CLIENT}"


def as_mail(harness: CliHarness, outside: OutsideSet) -> str:
    """The certificate as a partner mailed it, the key in a file, the password in another."""
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "desk@partner.example", "Your certificate"
    mail.set_content(f"Hello,\n\n{outside.certificate.decode()}\nclient_id: {outside.client_id}\n")
    mail.add_attachment(outside.cas, maintype="application", subtype="x-pem-file", filename="ca.pem")
    given(harness, old_key=outside.key, answer_eml=mail.as_bytes(), password=PASSWORD.encode())
    return f"old.key answer.eml --password-file password {CLIENT}={outside.client_id}"


FORMS: Final[Mapping[str, Callable[[CliHarness, OutsideSet], str]]] = {
    "a directory": as_directory,
    "a key store": as_key_store,
    "JSON": as_json,
    "a Kubernetes Secret": as_manifest,
    "a mail": as_mail,
}


@pytest.mark.parametrize("form", FORMS)
def test_sets_are_read_from_where_they_lie(harness: CliHarness, outside: OutsideSet, form: str) -> None:
    done = imported(harness, FORMS[form](harness, outside)).json
    assert done["generation"] == 1
    assert all("shred -u" in left["removal"] for left in done["left_behind"])
    assert done["left_behind"]
    assert harness.account.applications[0].client_id == outside.client_id


@pytest.fixture
def kv(harness: CliHarness, outside: OutsideSet) -> Iterator[Callable[[str, str], None]]:
    """A function that stores the set in a KV mount of another team."""
    admin, mounts = harness.saved.system.vault.admin, []

    def store(mount: str, version: str) -> None:
        admin.call("POST", f"sys/mounts/{mount}", {"type": "kv", "options": {"version": version}})
        mounts.append(mount)
        fields = {
            "key": base64.b64encode(outside.key).decode(),
            "crt": (outside.certificate + outside.cas).decode(),
            "pass": base64.b64encode(PASSWORD.encode()).decode(),
            "other": "of somebody else",
        }
        path, body = (f"{mount}/data/team/acme", {"data": fields}) if version == "2" else (f"{mount}/team/acme", fields)
        for seconds in range(50):
            try:
                admin.call("POST", path, body)
                break
            except Exception:  # a KV v2 mount is upgraded after it was made
                if seconds == 49:
                    raise

    yield store
    for mount in mounts:
        admin.call("DELETE", f"sys/mounts/{mount}")


NAMES: Final = "--map tls.key=key --map tls.crt=crt --map password=base64:pass"


@pytest.mark.parametrize("version", ["1", "2"])
def test_kv_is_read_with_the_callers_token(
    harness: CliHarness, outside: OutsideSet, kv: Callable[[str, str], None], version: str
) -> None:
    """The roles log in by their files and may not read the secret; the token in the environment may do only that."""
    kv(f"team-kv-{version}", version)
    admin = harness.saved.system.vault.admin
    policy = f'path "team-kv-{version}/*" {{ capabilities = ["read"] }}'
    admin.call("PUT", "sys/policies/acl/team-reader", {"policy": policy})
    own = {"VAULT_TOKEN": token_of(admin, policies=["team-reader"]).reveal()}
    line = (
        f"account import acme --from-kv team-kv-{version}/team/acme {NAMES} {CLIENT}={outside.client_id} {new(harness)}"
    )
    assert harness.run(line).code == 5
    done = harness.ok(f"{line} -o json", env=own).json
    assert done["stage"] == "current"
    (left,) = done["left_behind"]
    assert left["place"] == f"KV team-kv-{version}/team/acme"
    wanted = {
        "1": "bao kv delete -mount=team-kv-1 team/acme",
        "2": "bao kv patch -mount=team-kv-2 -remove-data=crt -remove-data=key -remove-data=pass team/acme && "
        "bao kv destroy -mount=team-kv-2 -versions=1 team/acme",
    }
    assert left["removal"] == wanted[version]


# piece by piece


def test_a_csr_by_hand_finds_its_answer(harness: CliHarness) -> None:
    harness.put("empty")
    made = made_outside(harness.partner)
    given(harness, by_hand_key=made.key, by_hand_csr=made.csr, password=PASSWORD.encode())
    adopting = f"account import acme --csr by.hand.csr --key by.hand.key --password-file password {new(harness)}"
    done = harness.ok(adopting)
    assert "next: broker csr submit acme --sent-at 20" in done.err
    assert harness.account.open_request
    assert harness.ok("csr show acme").out.encode() == made.csr
    (harness.home / "reply.pem").write_bytes(made.certificate + made.cas)
    accepting = " ".join(harness.saved.system.accepting())
    harness.ok(f"cert import acme reply.pem {accepting}")
    harness.ok(f"app add acme/reporting --client-id {made.client_id}")
    harness.ok("rotation promote acme")


def test_pieces_come_one_after_the_other(harness: CliHarness) -> None:
    harness.put("added")
    made = made_outside(harness.partner)
    given(harness, old_key=made.key, old_crt=made.certificate + made.cas)
    harness.ok("account import acme old.key --held-by web-1")
    assert harness.account.open_request
    accepting = " ".join(harness.saved.system.accepting())
    without = harness.ok(f"account import acme old.crt {accepting}")
    assert "next: broker app add acme/APPLICATION --client-id ID, then: broker rotation promote acme" in without.err
    assert [g.stage.value for g in harness.account.generations] == ["candidate"]
    done = harness.ok(f"account import acme old.crt {CLIENT}={made.client_id} --held-by web-2 -o json").json
    assert done["stage"] == "current"
    assert harness.account.requests[0].held_by == ("web-1", "web-2")


def test_import_without_password_stores_none(harness: CliHarness, outside: OutsideSet) -> None:
    given(harness, old_key=outside.key, old_crt=outside.certificate + outside.cas)
    ended = harness.run(f"account import acme old.key old.crt {new(harness)}")
    assert (ended.code, "--password-file" in ended.err) == (2, True)
    assert not harness.writes


def test_an_unknown_ca_names_the_whole_command(harness: CliHarness, outside: OutsideSet) -> None:
    given(harness, server_pem=harness.partner.authorities.server.pem.encode())
    options = new(harness).partition(" --accept-ca")[0]
    refused = harness.run(f"account import acme outside.zip {CLIENT} --server-ca server.pem {options}")
    assert (refused.code, harness.writes) == (6, [])
    (command,) = re.findall(r"then: (broker account import .*)", refused.err)
    harness.ok(command.removeprefix("broker "))
    assert harness.account.current


def test_a_finding_is_accepted_for_a_reason(harness: CliHarness, outside: OutsideSet) -> None:
    serving = made_outside(harness.partner, purpose="server")
    given(harness, serving_zip=zipped(serving.files))
    line = f"account import acme serving.zip {CLIENT} {new(harness)} --dry-run"
    refused = harness.run(line)
    assert (refused.code, "--accept certificate.purpose --reason TEXT" in refused.err) == (6, True)
    shown = harness.ok(f"{line} --accept certificate.purpose --reason 'it says so' -o json").json
    assert shown["steps"][-2] == "verify and store the certificate"


def test_looking_on_needs_no_password(harness: CliHarness, outside: OutsideSet) -> None:
    given(harness, old_pem=outside.key + outside.certificate + outside.cas)
    pem = (harness.home / "old.pem").read_bytes()
    shown = harness.ok(f"account import acme - {new(harness)} --dry-run -o json", input=pem).json
    assert [row["place"] for row in shown["found"] if row["what"] == "password"] == ["not given yet: --password-file"]
    assert not harness.writes


def test_secrets_are_typed_and_never_seen(harness: CliHarness, outside: OutsideSet) -> None:
    key = load_pem_private_key(outside.key, None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode()))
    given(harness, old_key=encrypted, old_crt=outside.certificate + outside.cas)
    words = shlex.split(f"account import acme old.key old.crt {CLIENT}={outside.client_id} {new(harness)}")
    words.remove("--yes")
    harness.watched = False
    with Terminal([sys.executable, "-m", "broker", *words], harness.home, harness.saved.system.environment) as terminal:
        for question, answer in (
            ("Passphrase of old.key: ", PASSPHRASE),
            ("Password: ", PASSWORD),
            ("Repeat for confirmation: ", PASSWORD),
            ("emailAddress=api@exemple.example? [y/N]: ", "y"),
        ):
            terminal.wait_for(question)
            terminal.type(f"{answer}\n")
        assert terminal.end() == 0, terminal.said
    assert "generation 1 of acme is current" in terminal.said
    assert PASSPHRASE not in terminal.said
    assert PASSWORD not in terminal.said


@pytest.mark.parametrize("roles", [(Role.OPERATOR,), (Role.OPERATOR, Role.ROTATOR)])
def test_a_missing_login_is_known_first(harness: CliHarness, outside: OutsideSet, roles: tuple[Role, ...]) -> None:
    host = {"BROKER_CONFIG": only(harness, roles)}
    ended = harness.run(f"account import acme outside.zip {CLIENT} {new(harness)}", env=host)
    assert (ended.code, "role has no way to log in" in ended.err) == (2, True)
    assert not harness.writes
    harness.ok(f"account add acme {harness.good('account add').partition(' acme ')[2]}", env=host)
    given(harness, password=PASSWORD.encode())
    harness.ok(f"account import acme --password-file password {CLIENT}={outside.client_id}", env=host)
    assert harness.account.password == 1


def test_key_and_cert_of_two_sets_refused(harness: CliHarness, outside: OutsideSet) -> None:
    other = made_outside(harness.partner)
    given(harness, one_key=outside.key, other_crt=other.certificate + other.cas, password=PASSWORD.encode())
    ended = harness.run(f"account import acme one.key other.crt --password-file password {new(harness)}")
    assert ended.code == 6
    assert "no certificate here is for the key in one.key" in ended.err
    assert not harness.writes


def test_the_key_of_the_certificate_is_taken(harness: CliHarness, outside: OutsideSet) -> None:
    other = made_outside(harness.partner)
    files = {**outside.files, "other.key": other.key}
    given(harness, both_zip=zipped(files))
    done = imported(harness, f"both.zip {CLIENT}").json
    assert "import.other-key" in [finding["code"] for finding in done["findings"]]
    two = {"one.key": outside.key, "other.key": other.key}
    given(harness, keys_zip=zipped(two))
    ended = harness.run("account import acme keys.zip")
    assert (ended.code, "more than one private key" in ended.err) == (2, True)


def test_an_entry_is_chosen_by_its_alias(harness: CliHarness, outside: OutsideSet) -> None:
    newer = made_outside(harness.partner)
    given(harness, one_p12=key_store(outside, b"older"), two_p12=key_store(newer, b"newer"), opens=PASSPHRASE.encode())
    (harness.home / "password").write_text(PASSWORD)
    line = f"one.p12 two.p12 --passphrase-file opens --password-file password {CLIENT}={newer.client_id}"
    listed = harness.run(f"account import acme {line} {new(harness)}")
    assert (listed.code, "'older'" in listed.err, "'newer'" in listed.err) == (2, True, True)
    assert not harness.writes
    imported(harness, f"{line} --alias newer")
    (certificate,) = harness.account.certificates
    assert certificate.pem.startswith(newer.certificate.decode().strip())


def test_refused_set_stays_candidate(harness: CliHarness, outside: OutsideSet) -> None:
    files = {**outside.files, "password": b"not the password"}
    given(harness, wrong_zip=zipped(files))
    ended = harness.run(f"account import acme wrong.zip {CLIENT} {new(harness)}")
    assert ended.code == 6
    assert "login_rejected" in ended.err
    assert [g.stage.value for g in harness.account.generations] == ["candidate"]


def test_a_login_of_another_account_is_refused(harness: CliHarness, outside: OutsideSet) -> None:
    imported(harness, f"outside.zip {CLIENT}")
    harness.writes.clear()
    given(harness, other_zip=zipped({"username": b"MZP9999999", "password": b"x"}))
    ended = harness.run("account import acme other.zip")
    assert (ended.code, "which is MZP0000001" in ended.err) == (6, True)
    assert not harness.writes


def test_an_encrypted_key_names_its_option(harness: CliHarness, outside: OutsideSet) -> None:
    line = as_key_store(harness, outside).replace("--passphrase-file passphrase", "")
    ended = harness.run(f"account import acme {line} {new(harness)}")
    assert ended.code == 2
    assert "store.jks is encrypted" in ended.err
    assert "hint: --passphrase-file PATH" in ended.err
    assert not harness.writes


# keys that others have too


def test_a_key_of_another_account_is_refused(harness: CliHarness, outside: OutsideSet) -> None:
    imported(harness, f"outside.zip {CLIENT}")
    harness.writes.clear()
    ended = harness.run(f"account import second outside.zip {new(harness)}")
    assert ended.code == 6
    assert "is held by account acme" in ended.err
    assert "acme, signing request 1, answered, imported; generation 1, current" in ended.out
    assert not harness.writes
    shared = f"account import second outside.zip {CLIENT} {new(harness)} --shared-key --reason 'one login'"
    assert harness.ok(f"{shared} -o json").json["stage"] == "current"
    assert imported(harness, f"outside.zip {CLIENT}").json["steps"] == []  # the first is not disturbed
    doctor = harness.run("doctor -o json").json["findings"]
    assert [f["message"].split(":")[0] for f in doctor if f["code"] == "account.shared-key"] == ["acme", "second"]
    harness.ok("csr new second")
    assert harness.run("rotation status second -o json").json["generations"][0]["key"] == "kv:1"
    vault = harness.saved.system.vault.admin
    spkis = [vault.read(f"keys/{path}").data["value"]["spki"] for path in ("acme/1", "second/1", "second/2")]
    assert (spkis[0] == spkis[1], spkis[0] == spkis[2]) == (True, False)


def test_a_removed_account_takes_no_import(harness: CliHarness, outside: OutsideSet) -> None:
    imported(harness, f"outside.zip {CLIENT}")
    harness.ok("account remove acme --force --reason over --yes")
    ended = harness.run(f"account import acme outside.zip {CLIENT} {new(harness)}")
    assert (ended.code, "removed" in ended.err) == (6, True)
    other = harness.ok(f"account import second outside.zip {CLIENT} {new(harness)} -o json").json  # its key is gone
    assert other["stage"] == "current"


def test_copies_outside_hold_a_generation(harness: CliHarness, outside: OutsideSet) -> None:
    imported(harness, f"outside.zip {CLIENT} --held-by 'nginx on web-1'")
    harness.ok("csr new acme")
    reply = harness.saved.system.reply("acme")
    harness.ok(f"cert import acme {reply.name}")
    harness.ok("rotation promote acme")
    status = harness.ok("rotation status acme -o json").json
    assert status["generations"][0]["held_by"] == ["nginx on web-1"]
    waiting = harness.run("rotation retire acme --generation 1")
    assert waiting.code == 7
    (command,) = re.findall(r"broker (rotation returned acme --held-by '[^']+')", waiting.err)
    harness.ok(command)
    harness.ok("rotation retire acme --generation 1")
    harness.ok("evidence verify acme")
    freed = harness.ok(f"account import second outside.zip {CLIENT} {new(harness)} -o json")  # acme's copy is destroyed
    assert freed.json["stage"] == "current"
    assert harness.ok(f"account import acme outside.zip {new(harness)} -o json").json["steps"] == []


# other commands meanwhile


def meanwhile(harness: CliHarness, path: str, phase: Phase, lines: tuple[str, ...]) -> Wiring:
    """Return a wiring that runs `lines` once in other processes, at a write of `path`."""
    left = list(lines)

    def observe(seen: Phase, where: str) -> None:
        while left and (seen, where.endswith(path)) == (phase, True):
            harness.saved.system.run(*left.pop(0).split())

    return Wiring(observer=observe)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("path", ["keys/acme/1", "accounts/acme"])
@pytest.mark.parametrize("lines", [("csr new acme",), ("csr new acme", "csr cancel acme --yes")])
def test_a_request_made_meanwhile_wins(harness: CliHarness, phase: Phase, path: str, lines: tuple[str, ...]) -> None:
    harness.put("added")
    harness.watched = False
    given(harness, old_key=harness.saved.outside.key)
    wiring = meanwhile(harness, path, phase, lines)
    system = harness.saved.system
    ended = inside(
        ["account", "import", "acme", "old.key"], home=harness.home, environment=system.environment, wiring=wiring
    )
    harness.saved.settle()
    assert list(harness.saved.faults()) == []
    for request in (r for r in harness.account.requests if not r.closed):
        stored = harness.saved.system.vault.admin.read(f"keys/acme/{request.number}").data["value"]
        assert bool(stored.get("imported")) is request.imported
    assert ended.code == (0 if any(r.imported for r in harness.account.requests) else 8), ended.err


@pytest.mark.parametrize("path", ["accounts/acme", "passwords/acme/1", "keys/acme/1"])
def test_two_imports_of_one_set_make_one(harness: CliHarness, outside: OutsideSet, path: str) -> None:
    line = f"account import acme outside.zip {CLIENT} --held-by web-1 {new(harness)}"
    harness.watched = False
    wiring = meanwhile(harness, path, Phase.BEFORE, (line,))
    environment = harness.saved.system.environment
    ended = inside(line.split(), home=harness.home, environment=environment, wiring=wiring)
    assert ended.code in (0, 8), ended.err
    assert harness.ok(f"{line} -o json").json["steps"] == []
    harness.saved.settle()
    assert list(harness.saved.faults()) == []
    assert [g.stage.value for g in harness.account.generations if g.parts.certificate] == ["current"]
