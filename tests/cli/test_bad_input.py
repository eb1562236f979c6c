"""Whatever is typed: our own words, the right exit code, nothing changed."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest
import stamina

from tests.support.catalogue import GOOD
from tests.support.cli_harness import CliHarness
from tests.support.console import commands
from tests.support.depth import sampled
from tests.support.printed_run import PrintedRuns
from tests.support.saved_states import REPLY
from tests.support.system import PASSWORD, Ended
from tests.support.vault import admin_token

ASKING: Final = [name for name, good in GOOD.items() if good.vault]
NEED_SERVERS: Final = ("mail test", "notify test")  # of mail, or a webhook: that is refused first
BAD_NAMES: Final = ("../x", "ACME", "", "é", "a" * 300, "a b", "a\x1b[31m", "%2e%2e", "a\udcff")


@dataclass(frozen=True, slots=True)
class Row:
    """A bad command line, how it ends, and words that it says."""

    line: str
    code: int
    says: str
    state: str = "promoted"
    input: bytes = b""

    def __str__(self) -> str:
        return self.line[:70].encode("ascii", "backslashreplace").decode()


ADD: Final = (
    "account add new --environment {environment} --base-url {url} --login {login} --subject C={C} --subject ST=Paris "
    "--subject L=Paris --subject O={O} --subject email={email} {more}"
)


def adding(more: str = "", **changes: str) -> str:
    """Return an `account add` that is good but for `changes`."""
    good = {"environment": "stand-in", "url": "https://partner.example/v3", "login": "MZP0000002"}
    return ADD.format(**(good | {"C": "FR", "O": "New", "email": "a@new.example"} | changes), more=more)


ENVIRONMENT: Final = b'[environments.production]\nbase_url = "https://api.own.example/v1"\n'
ROWS: Final = (
    Row("nonsense", 2, "no such command 'nonsense'"),
    Row("statsu", 2, "Did you mean status?"),
    Row("account nonsense", 2, "no such command 'nonsense'"),
    Row("account ad", 2, "Did you mean 'add'?"),
    Row("--nonsense", 2, "error: no such option"),
    Row("account add", 2, "hint: broker account add --help"),
    Row("mail set", 2, "hint: broker mail set --help"),
    Row("mail set pop3 --password-file -", 2, "is not one of", input=b"x"),
    Row("mail set smtp", 2, "stdin is not a terminal"),
    Row("mail set smtp --password-file -", 2, "the password is empty"),
    Row("mail set smtp --password-file nowhere", 2, "cannot read nowhere"),
    Row("mail test", 2, "no mail server is configured"),
    Row("mail test --to nobody", 2, "is not one mail address"),
    Row("mail test --to you@company.example", 2, "no SMTP server is configured"),
    Row("notify list acme", 2, "unexpected extra argument"),
    Row("notify test", 2, "give either addresses or --all"),
    Row("notify test --all you@company.example", 2, "give either addresses or --all"),
    Row("notify test nobody", 2, "is not one mail address"),
    Row("notify test --all", 2, "no channel for notices is configured"),
    Row("--timeout soon status", 2, "'soon' is not a duration"),
    Row("status --timeout soon", 2, "'soon' is not a duration"),
    Row("--timeout 1s account show acme --timeout soon", 2, "'soon' is not a duration"),
    Row("status --config nowhere.toml", 2, "cannot read nowhere.toml"),
    Row("--timeout 0s status", 2, "'0s' is not a duration"),
    Row("--config nowhere.toml status", 2, "cannot read nowhere.toml"),
    Row("demo --keep now", 2, "unexpected extra argument"),
    Row("init", 2, "broker.toml exists already"),
    Row("init --force --vault nonsense", 2, "not an address of Vault"),
    Row("init --force --vault http://user:pw@vault", 2, "carries more than host"),
    Row("init --force --vault http://vault --mount ../x", 2, "is not a mount of Vault"),
    Row("init --force --vault http://vault --ca-file nowhere.pem", 2, "nowhere.pem is not a file"),
    Row("init --force --vault http://vault --ca-file 'a\x07'", 2, "control character"),
    Row("init --vault embedded --out roles", 2, "it is a directory"),
    Row("init --consumer --force", 2, "no address of a broker service"),
    Row("init --consumer --force --addr http://broker.example --auth kubernetes", 2, "is not loopback"),
    Row("init --consumer --force --addr https://broker.example", 2, "no identity for the service"),
    Row("init --consumer --force --addr https://broker.example --auth s.planted", 2, "names no identity"),
    Row("init --consumer --vault embedded", 2, "--vault is not for --consumer"),
    Row("init --auth kubernetes", 2, "--auth requires --consumer"),
    Row("init --vault embedded --out nowhere/broker.toml", 2, "nowhere is no directory"),
    Row("status nobody", 2, "there is no account nobody"),
    Row("status acme nobody", 2, "there is no account nobody"),
    Row("status acme --all", 2, "cannot be combined"),
    Row("doctor now", 2, "unexpected extra argument"),
    Row("explain nobody", 2, "there is no account nobody"),
    Row("explain acme --generation 9", 2, "acme has no generation 9"),
    Row("explain acme", 6, "acme has no candidate", "requested"),
    Row(adding(login="''"), 2, "use 1 to 256 printable characters"),
    Row(adding(login="'MZP\x1b'"), 2, "is not a valid login"),
    Row(adding(login="x" * 300), 2, "use 1 to 256 printable characters"),
    Row(adding(login="x" * 100), 6, "CN has 100 characters"),
    Row(adding(login="MZP:1"), 2, "cannot be sent"),
    Row(adding(C="FRA"), 6, "C is not two upper-case letters"),
    Row(adding(O="''"), 6, "O is empty"),
    Row(adding(O="a\udcff"), 6, "half a character"),
    Row(adding(email="nobody"), 6, "emailAddress"),
    Row(adding("--subject C=FR"), 2, "names C twice"),
    Row(adding("--subject X=1"), 2, "is not NAME=VALUE"),
    Row(adding("--subject OU=Others"), 6, "OU is 'Others'"),
    Row(adding("--profile nobody"), 2, "there is no profile 'nobody'"),
    Row(adding("--contact nobody"), 2, "is not one mail address"),
    Row(adding("--contact a@b.example,c@d.example"), 2, "is not one mail address"),
    Row(adding("--team ''"), 2, "is not one mail address"),
    Row(adding("--team a.@b.example"), 2, "is not one mail address"),
    Row(adding(email="a..b@new.example"), 6, "emailAddress is not one address"),
    Row(adding(environment="nowhere"), 2, "has no environment 'nowhere'"),
    Row(adding(environment="nowhere", C="FRA"), 2, "has no environment 'nowhere'"),
    Row("account add new --login MZP0000002 --environment stand-in", 2, "hint: --base-url https://host/path"),
    Row(adding(environment="production"), 2, "secrets are sent to no other address"),
    Row(adding(url="''"), 2, "has no address of its own"),
    Row(adding(url="http://partner.example"), 2, "is not https"),
    Row(adding(url="https://u:p@partner.example"), 2, "no user"),
    Row(adding().replace("add new", "add acme"), 8, "account acme exists already"),
    Row("account add new --login MZP0000002", 6, "is refused"),
    Row("account import acme", 2, "there is nothing to import"),
    Row("account import acme - --password-file -", 2, "standard input is named twice"),
    Row("account import acme outside.zip --map tls.key", 2, "is not NAME=FIELD"),
    Row("account import acme outside.zip --map x=y", 2, "names are tls.key"),
    Row("account import acme outside.zip --reason why", 2, "--reason requires"),
    Row("account import acme outside.zip --shared-key", 2, "--shared-key or --accept requires --reason"),
    Row("account import acme outside.zip --accept nonsense --reason why", 2, "is not one of"),
    Row("account import acme outside.zip --held-by ''", 2, "is empty"),
    Row("account import acme outside.zip --held-by 'a\x07'", 2, "control character"),
    Row("account import acme outside.zip --alias nobody", 2, "no single private key is called"),
    Row("account import acme outside.zip --login other", 2, "the login of acme is MZP0000001"),
    Row("account import acme outside.zip --client-id-for x/y", 2, "is not a name"),
    Row("account import acme outside.zip --client-id-for reporting=other", 8, "with another client_id"),
    Row("account import acme --key good.csr", 2, "good.csr holds no private key"),
    Row("account import acme --csr outside.zip", 2, "outside.zip holds no signing request"),
    Row("account import acme good.csr", 2, "the key of the signing request in good.csr is missing"),
    Row("account import acme -", 2, "there is nothing to import", input=b'{"a": "b"}'),
    Row("account import acme -", 2, "the JSON document is damaged", input=b'{"a": '),
    Row("account import acme - --map password=x", 2, "no value is called 'x'", input=b'{"a": "b"}'),
    Row("account import acme --from-kv secret", 2, "is not MOUNT/PATH"),
    Row("account import acme --from-kv ../x/y", 2, "is not MOUNT/PATH"),
    Row("account import acme --from-kv secret/acme", 5, "no token for Vault"),
    Row("account import new --login new --password-file -", 2, "tells its subject", input=b"x"),
    Row("account import new outside.zip --environment nowhere", 2, "has no environment 'nowhere'"),
    Row("account import new outside.zip --profile nobody", 2, "there is no profile 'nobody'"),
    Row("account import new outside.zip --login 'MZP:1'", 2, "cannot be sent"),
    Row("account import new outside.zip --environment stand-in --base-url http://x", 2, "is not https"),
    Row("account import acme outside.zip --yes", 6, "is signed by a CA that is not accepted", "empty"),
    Row("account list acme", 2, "unexpected extra argument"),
    Row("account show nobody", 2, "there is no account nobody"),
    Row("account set acme", 2, "nothing to set"),
    Row("account set acme --submit-via fax", 2, "is not one of"),
    Row("account set acme --language de", 2, "has no mails in 'de'"),
    Row("account set acme --language fr --clear language", 2, "cannot be combined"),
    Row("csr submit acme --via fax", 2, "is not one of", "requested"),
    Row("csr submit acme --via smtp", 2, "no SMTP server is configured", "requested"),
    Row("csr submit acme --via smtp --out x.eml", 2, "--out is for --via eml", "requested"),
    Row("csr submit acme --via portal --yes", 2, "has no portal", "requested"),
    Row("csr submit acme --via vault-pki", 2, "no role of Vault's PKI signs for acme", "requested"),
    Row("csr submit acme --via manual", 2, "stdin is not a terminal", "requested"),
    Row("csr submit acme --via smtp --sent-at 2026-03-01", 2, "--sent-at is for what a person sent", "requested"),
    Row("account set acme --renew-before 30d --clear renew-before", 2, "cannot be combined"),
    Row("account set acme --renew-before 100%", 2, "is not a share"),
    Row("account set acme --renew-before soon", 2, "is not a duration"),
    Row("account set acme --team nobody", 2, "is not one mail address"),
    Row("account set acme --clear login", 2, "is not one of"),
    Row("account set acme --subject O", 2, "is not NAME=VALUE"),
    Row("account set acme --subject C=FRA", 6, "is refused"),
    Row("account suspend acme", 2, "--reason"),
    Row("account suspend acme --reason ''", 2, "--reason"),
    Row("account suspend nobody --reason x", 2, "there is no account nobody"),
    Row("account resume nobody", 2, "there is no account nobody"),
    Row("account remove nobody --yes", 2, "there is no account nobody"),
    Row("account remove acme", 2, "--yes"),
    Row("account remove acme --yes", 7, "generation 1 is current"),
    Row("account remove acme --force --yes", 2, "--force requires --reason"),
    Row("lease list nobody/x", 2, "is not a name"),
    Row("lease show zz", 2, "'zz' is not the id of a lease"),
    Row("lease show ''", 2, "'' is not the id of a lease"),
    Row("lease show eyJhbGciOiJub25lIn0.e30.c2VjcmV0", 2, "the text of a lease, which is a secret"),
    Row("lease show 0123456789ab", 2, "fits '0123456789ab'"),
    Row("lease show .", 2, "no lease is kept in"),
    Row("lease renew nowhere", 2, "no lease is kept in"),
    Row("lease revoke .", 2, "no lease is kept in"),
    Row("lease key", 2, "rotate is missing"),
    Row("lease key destroy", 2, "'destroy' is not what can be done"),
    Row("lease key rotate", 6, "no lease was signed yet", "empty"),
    Row("lease revoke --reason gone", 2, "nothing to revoke is named"),
    Row("lease revoke --consumer nothing --reason gone", 2, "fits 'nothing'"),
    Row("lease revoke --account nobody --reason gone", 2, "there is no account nobody"),
    Row("lease revoke --generation 1 --reason gone", 2, "--generation requires --account"),
    Row("lease revoke --account acme --generation 7 --reason gone", 2, "fits 'generation 7 of acme'"),
    Row("lease revoke 01234567", 2, "--reason"),
    Row("lease revoke --account acme --reason 'a\x1b'", 2, "control character"),
    Row("app add acme", 2, "names no application"),
    Row("app add acme/x/y", 2, "'x/y' is not a name"),
    Row("app add nobody/new", 2, "there is no account nobody"),
    Row("app add acme/new --client-id 'a b'", 2, "printable ASCII characters without blanks"),
    Row(f"app add acme/new --client-id {'x' * 300}", 2, "300 characters"),
    Row("app add acme/reporting --client-id other", 8, "with another client_id"),
    Row("app set acme/nothing --client-id x", 2, "acme has no application nothing"),
    Row("app set acme/reporting --client-id ''", 2, "0 characters"),
    Row("app set acme/reporting --client-id é", 2, "printable ASCII characters without blanks"),
    Row("app list nobody", 2, "there is no account nobody"),
    Row("app remove acme/nothing --yes", 2, "acme has no application nothing"),
    Row("app remove acme/reporting", 2, "--yes"),
    Row("app remove acme/reporting", 2, "stdin is not a terminal", input=b"y\n"),
    Row("password set acme", 2, "no password is given"),
    Row("password set acme", 2, "hint: --password-file PATH, or - for standard input"),
    Row("password rotate nobody", 2, "there is no account nobody"),
    Row("password rotate acme", 6, "no current password to replace", "added"),
    Row("password rotate acme --done stored", 2, "is not one of"),
    Row("password rotate acme --done asked", 6, "is under way"),
    Row("password rotate acme --done set", 6, "comes after step asked", "changing"),
    Row("password rotate acme --note later", 2, "--note requires --done", "changing"),
    Row("password rotate acme --done asked --note 'a\x1b'", 2, "control character", "changing"),
    Row("password rotate acme --abort", 2, "--abort requires --reason", "changing"),
    Row("password rotate acme --abort --reason over", 6, "is under way"),
    Row("password rotate acme --abort --reason over --done asked", 2, "cannot be combined", "changing"),
    Row("password set acme --password-file -", 2, "the password is empty"),
    Row("password set acme --password-file -", 2, "the password is empty", input=b"\n"),
    Row("password set acme --password-file -", 2, "not UTF-8", input=b"\xff\xfe"),
    Row("password set acme --password-file -", 2, "control character", input=b"two\nlines\n"),
    Row("password set acme --password-file -", 2, "control character", input=b"nul\x00"),
    Row("password set acme --password-file -", 2, "invisible character", input="c1\x9b".encode()),
    Row("password set acme --password-file -", 2, "invisible character", input="bidi\u202e".encode()),
    Row("password set acme --password-file -", 2, "byte order mark", input=b"\xef\xbb\xbfsecret\n"),
    Row("password set acme --password-file -", 2, "has 1025 characters", input=b"x" * 1025),
    Row("password set nobody --password-file -", 2, "there is no account nobody", input=b"pass-not-to-be-shown"),
    Row("trust set acme nowhere.pem --accept-ca zz", 2, "fingerprint"),
    Row(f"trust set acme nowhere.pem --accept-ca {'0' * 64}", 2, "cannot read nowhere.pem"),
    Row(f"trust set acme reply.zip --accept-ca {'0' * 64}", 6, "no CA in this reply"),
    Row("trust set acme reply.zip", 6, "no CA of the partner's server was accepted"),
    Row("trust set acme good.csr", 2, "neither a certificate nor a client_id"),
    Row("csr new nobody", 2, "there is no account nobody"),
    Row("csr new acme --out roles", 2, "it is a directory"),
    Row("csr new acme --supersede --yes --out nowhere/acme.csr", 2, "nowhere is no directory", "requested"),
    Row("csr new acme --out broker.toml/x", 2, "broker.toml is no directory"),
    Row("csr new acme --out .", 2, "it is a directory"),
    Row("csr new acme --out /", 2, "it is a directory"),
    Row("csr show acme", 6, "no open signing request"),
    Row("csr show acme --number 9", 2, "no signing request 9"),
    Row("csr show acme --number 0", 2, "not in the range"),
    Row("csr show acme --number one", 2, "not a valid integer"),
    Row("csr lint good.csr --profile nobody", 2, "there is no profile 'nobody'"),
    Row("csr lint good.csr --login MZP7777777", 6, "refused"),
    Row("csr lint reply.zip", 2, "no signing request"),
    Row("csr submit acme", 6, "no open signing request"),
    Row("csr submit acme --sent-at yesterday", 2, "'yesterday' is not a time", "requested"),
    Row("csr submit acme --sent-at 2999-01-01", 2, "is in the future", "requested"),
    Row("csr submit acme --sent-at 2020-13-01", 2, "is not a time", "requested"),
    Row("csr submit acme --reference 'a\x1b'", 2, "control character", "requested"),
    Row("csr submit acme --to nobody", 2, "mail address", "requested"),
    Row("csr submit acme --out roles", 2, "it is a directory", "requested"),
    Row("csr submit acme --out nowhere/x.eml", 2, "nowhere is no directory", "requested"),
    Row("csr submit acme --out x.eml --sent-at 2026-01-01", 2, "--out", "requested"),
    Row("csr submit acme --out - -o json", 2, "either the mail or JSON", "requested"),
    Row("csr submit acme --to a@b.example --sent-at 2026-01-01", 2, "later than --sent-at", "requested"),
    Row("csr submit acme --sent-at 0001-01-01T00:00+23:00", 2, "is not a time", "requested"),
    Row("csr submit acme --sent-at 9999-12-31T23:59-23:00", 2, "is not a time", "requested"),
    Row("csr submit acme --to nobody --sent-at 2026-01-01", 2, "mail address", "requested"),
    Row("csr cancel acme --yes", 6, "no open signing request"),
    Row("csr cancel acme", 2, "--yes", "requested"),
    Row("csr new acme --reuse-key", 6, "does not allow another certificate for the same key"),
    Row("csr new acme --reuse-key", 6, "does not allow another", "requested"),
    Row("csr new acme --reuse-key", 6, "no current generation", "own"),
    Row("csr new acme --compromised", 2, "--compromised requires --reason"),
    Row("csr new acme --compromised --reason stolen", 2, "--compromised requires --serving"),
    Row("csr new acme --compromised --reason stolen --serving on", 2, "is not one of"),
    Row("csr new acme --compromised --reason stolen --serving keep --supersede", 2, "cannot be combined"),
    Row("csr new acme --compromised --reason stolen --serving keep --reuse-key", 2, "cannot be combined"),
    Row("csr new acme --compromised --reason stolen --serving keep", 6, "no current generation", "requested"),
    Row("csr new acme --serving keep", 2, "--serving requires --compromised"),
    Row("csr new acme --reason stolen", 2, "--reason requires --compromised"),
    Row("rotation revoked acme --generation 1", 6, "nobody reported"),
    Row("rotation revoked acme --generation 9", 2, "no generation 9"),
    Row("rotation revoked acme", 2, "--generation"),
    Row("rotation revoked acme --generation 1", 6, "is current, and has this certificate", "compromised"),
    Row("rotation revoked acme --generation 1 --reason 'a\x1b'", 2, "control character", "replaced"),
    Row("rotation rollback acme", 6, "others know the key of generation 1", "replaced"),
    Row("csr refused acme --reason no --yes", 6, "no open signing request"),
    Row("csr refused acme --yes", 2, "--reason", "requested"),
    Row("csr refused acme --reason ' ' --yes", 2, "--reason is empty", "requested"),
    Row("csr refused acme --reason no", 2, "--yes", "requested"),
    Row("csr new acme --supersede", 2, "--yes", "requested"),
    Row("rotation reject acme --generation 1 --reason x", 2, "--yes", "candidate"),
    Row("cert import nobody reply.zip", 2, "there is no account nobody"),
    Row("cert import acme - --server-ca -", 2, "standard input is named twice"),
    Row("cert import acme reply.zip --accept certificate.purpose", 2, "--accept requires --reason"),
    Row("cert import acme reply.zip --reason because", 2, "--reason requires --accept"),
    Row("cert import acme reply.zip --accept certificate.key --reason because", 2, "is not one of"),
    Row("cert import acme good.csr", 2, "neither a certificate nor a client_id"),
    Row("cert import acme second.zip", 6, "waits for no certificate"),
    Row("cert import acme second.zip", 6, "has no certificate for the key of this request", "requested"),
    Row("cert import acme reply.zip", 6, "a CA that is not accepted", "requested"),
    Row("cert import acme reply.zip --accept-ca zz", 2, "fingerprint", "requested"),
    Row(f"cert import acme reply.zip --accept-ca {'0' * 64}", 6, "no CA in this reply", "requested"),
    Row("cert import acme reply.zip --client-id-for nothing", 2, "acme has no application nothing"),
    Row("cert import acme reply.zip --client-id-for reporting --client-id x", 6, "does not name the client_id"),
    Row("cert import acme reply.zip --client-id x", 2, "--client-id-for"),
    Row("cert import acme", 2, "either files or --reply"),
    Row(f"cert import acme reply.zip --reply acme/{REPLY}", 2, "either files or --reply"),
    Row("cert import acme --reply 5eed", 2, "is not the id of a reply"),
    Row(f"cert import acme --reply other/{REPLY}", 2, f"reply other/{REPLY} is one of other"),
    Row(f"cert import acme --reply acme/{REPLY}", 2, f"acme has no reply '{REPLY}'"),
    Row(f"cert import acme --reply acme/{REPLY}", 6, "a CA that is not accepted", "arrived"),
    Row("reply list ACME", 2, "account 'ACME' is not a name"),
    Row("reply list nobody", 2, "there is no account nobody"),
    Row("reply show acme", 2, "is not the id of a reply"),
    Row("reply show acme/5EED5EED5EED5EED", 2, "is not the id of a reply"),
    Row(f"reply show nobody/{REPLY}", 2, "there is no account nobody"),
    Row(f"reply show acme/{REPLY}", 2, f"acme has no reply '{REPLY}'"),
    Row(f"reply dismiss acme/{REPLY}", 2, "--reason"),
    Row(f"reply dismiss acme/{REPLY} --reason 'a\x1b'", 2, "control character", "arrived"),
    Row(f"reply dismiss acme/{REPLY} --reason no", 2, f"acme has no reply '{REPLY}'"),
    Row("cert inspect good.csr", 2, "neither a certificate nor a client_id"),
    Row("rotation status nobody", 2, "there is no account nobody"),
    Row("rotation promote nobody", 2, "there is no account nobody"),
    Row("rotation retire nobody --generation 1", 2, "there is no account nobody"),
    Row("rotation rehearse nobody", 2, "there is no account nobody"),
    Row("needs-renewal nobody", 255, "there is no account nobody"),
    Row("needs-renewal", 255, "missing argument"),
    Row("needs-renewal acme --renew-before soon", 255, "is not a duration"),
    Row("needs-renewal acme --renew-before 0%", 255, "is not a share"),
    Row("--timeout never needs-renewal acme", 255, "is not a duration"),
    Row("rotation plan nobody", 2, "there is no account nobody"),
    Row("rotation plan acme --all", 2, "--all cannot be combined"),
    Row("rotation snooze acme", 2, "either --until or --end"),
    Row("rotation snooze acme --until 2030-01-01 --end", 2, "either --until or --end"),
    Row("rotation snooze acme --until 2030-01-01", 2, "--until requires --reason"),
    Row("rotation snooze acme --end --reason why", 2, "--reason requires --until"),
    Row("rotation snooze acme --until soon --reason why", 2, "'soon' is not a time"),
    Row("rotation snooze acme --until 2020-01-01 --reason why", 6, "must lie between now and the end"),
    Row("rotation snooze acme --until 9999-01-01 --reason why", 6, "must lie between now and the end"),
    Row("rotation snooze acme --until 2030-01-01 --reason why", 6, "acme has no certificate yet", "requested"),
    Row("rotation snooze nobody --end", 2, "there is no account nobody"),
    Row("account set acme --renewal never", 2, "'never' is not one of"),
    Row("rotation canary acme --generation 9", 2, "no generation 9"),
    Row("rotation canary acme --generation 0", 2, "not in the range"),
    Row(f"rotation canary acme --generation {9**40}", 2, "no generation"),
    Row("rotation canary acme --force", 2, "--force requires --reason"),
    Row("rotation canary acme --reason why", 2, "--reason requires --force"),
    Row("rotation canary acme --force --reason 'a\x1b'", 2, "control character"),
    Row("rotation canary acme", 6, "acme has no candidate", "requested"),
    Row("rotation promote acme", 6, "no candidate", "requested"),
    Row("rotation promote acme --generation 9", 2, "no generation 9"),
    Row("rotation promote acme --force", 2, "--force requires --reason"),
    Row("rotation promote acme --generation 1", 6, "cannot promote generation 1", "rotated"),
    Row("rotation rollback acme", 6, "no previous generation"),
    Row("rotation rollback acme", 6, "hint: broker rotation status acme"),
    Row("rotation rollback acme --generation 9", 2, "no generation 9"),
    Row("rotation rollback acme --generation 2", 6, "cannot roll back generation 2", "renewed"),
    Row("rotation rollback acme --force --reason ' '", 2, "--force requires --reason"),
    Row("rotation reject acme --generation 1", 2, "--reason"),
    Row("rotation reject acme --reason x", 2, "--generation"),
    Row("rotation reject acme --generation 1 --reason x", 6, "cannot reject generation 1"),
    Row("rotation reject acme --generation 1 --reason ' '", 2, "--reason is empty"),
    Row(f"rotation reject acme --generation 1 --reason {'x' * 1001} --yes", 2, "1001 characters", "candidate"),
    Row("rotation reject acme --generation 9 --reason x", 2, "no generation 9"),
    Row("rotation returned acme", 2, "missing option"),
    Row("rotation returned acme --held-by nobody", 2, "no copies noted with 'nobody'"),
    Row("rotation returned nobody --held-by x", 2, "there is no account nobody"),
    Row("rotation returned acme --held-by x --reason 'a\x07'", 2, "control character"),
    Row("rotation run acme", 2, "unexpected extra argument"),
    Row("rotation run --health here", 2, "is not an address to listen on"),
    Row("rotation run --once --health", 2, "requires an argument"),
    Row("rotation retire acme", 2, "--generation"),
    Row("rotation retire acme --generation 1", 6, "cannot retire generation 1"),
    Row("rotation retire acme --generation 1", 6, "hint: it takes one that is previous or rejected"),
    Row("rotation retire acme --generation 9", 2, "no generation 9"),
    Row("rotation retire acme --generation 1 --force", 2, "--force requires --reason", "rotated"),
    Row("agent", 2, "no broker service is configured"),
    Row("agent --until-exit-of x", 2, "is not a valid integer"),
    Row("agent acme/reporting", 2, "unexpected extra argument"),
    Row("exec acme/reporting", 125, "missing argument 'PROGRAM...'"),
    Row("exec acme/reporting --on-rotation NONE -- true", 125, "neither restart nor a signal"),
    Row("exec acme/reporting -- true", 125, "--consumer-token-file"),
    Row("exec acme/nothing --consumer-token-file reader.token -- true", 125, "the consumer's token lacks update on"),
    Row("exec acme/reporting --consumer-token-file reader.token --memfd --on-rotation HUP -- true", 125, "no rotation"),
    Row("request acme/reporting GET /fleets", 2, "--consumer-token-file"),
    Row("request acme/nothing GET /fleets --consumer-token-file reader.token", 5, "lacks update on"),
    Row("request acme/reporting BREW /fleets", 2, "is not one of"),
    Row("request acme/reporting GET https://elsewhere.example/", 6, "not below the account's base URL"),
    Row("request acme/reporting DELETE /fleets --consumer-token-file reader.token", 2, "--yes"),
    Row("request acme/reporting GET /fleets --body reply.zip", 2, "has no body"),
    Row("request acme/reporting POST /fleets --all --yes", 2, "--all is for GET"),
    Row("bundle get acme/reporting", 2, "--consumer-token-file"),
    Row("bundle get acme --consumer-token-file reader.token", 2, "names no application"),
    Row("bundle get nobody/reporting --consumer-token-file reader.token", 2, "there is no account nobody"),
    Row("bundle get acme/nothing --consumer-token-file reader.token", 5, "the consumer's token lacks update on"),
    Row("bundle get acme/reporting --consumer-token-file -", 2, "standard input holds no token"),
    Row("bundle get acme/reporting --consumer-token-file -", 2, "holds no token", input=b"two words"),
    Row("bundle get acme/reporting --consumer-token-file - --to b", 5, "", input=b"hvs.unknown"),
    Row("bundle get acme/reporting --consumer-token-file reader.token --ttl soon", 2, "is not a duration"),
    Row("bundle get acme/reporting --consumer-token-file reader.token --ttl 0s", 2, "is not a duration"),
    Row("bundle get acme/reporting --consumer-token-file reader.token --ttl 10%", 2, "is not a duration"),
    Row("bundle get acme/reporting --consumer-token-file reader.token --format zip", 2, "is not one of"),
    Row("bundle get acme/reporting --consumer-token-file reader.token --to b", 6, "no client_id yet", "requested"),
    Row("bundle get acme/reporting --consumer-token-file reader.token --to b", 6, "no current generation", "candidate"),
    Row("evidence holders nobody", 2, "there is no account nobody"),
    Row("evidence holders acme --from soon", 2, "'soon' is not a time"),
    Row("evidence holders acme --from 2026-02-01 --to 2026-02-01", 2, "--from is not before --to"),
    Row("evidence holders acme --from 9999-12-31T23:59:59", 2, "--from is in the future"),
    Row("evidence holders acme -o xml", 2, "'xml' is not one of"),
    Row("evidence show", 2, "no account is named"),
    Row("evidence show nobody", 2, "there is no account nobody"),
    Row("evidence show acme --all", 2, "cannot be combined"),
    Row("evidence verify", 2, "no account is named"),
    Row("evidence verify nobody", 2, "there is no account nobody"),
    Row("evidence verify acme --file reply.zip", 2, "--file"),
    Row("evidence verify --file reply.zip", 6, "no exported evidence"),
    Row("evidence verify --all --key reply.zip", 2, "no Ed25519 public key"),
    Row("evidence anchor now", 2, "unexpected extra argument"),
    Row("evidence export", 2, "missing argument"),
    Row("evidence export roles", 2, "it is a directory"),
    Row("evidence export all.jsonl --key-to nowhere/x", 2, "nowhere is no directory"),
    Row("evidence export all.jsonl --key-to anchor.pem", 2, "nothing has been signed yet"),
    Row("evidence export all.jsonl --key-to ./all.jsonl", 2, "./all.jsonl is named for two different outputs"),
    Row("evidence export - --key-to -", 2, "- is named for two different outputs"),
    Row("evidence verify --file - --key -", 2, "standard input is named twice"),
    Row("partner list now", 2, "unexpected extra argument"),
    Row("partner show nobody", 2, "there is no profile 'nobody'"),
    Row("partner show ../x", 2, "there is no profile"),
    Row("partner add reply.zip", 2, "is not UTF-8"),
    Row("partner add good.csr", 2, "good.csr"),
    Row("partner add -", 2, "name is missing"),
    Row("partner add -", 2, "stellantis", input=b'schema = 1\nname = "stellantis"\ntitle = "Mine"\n' + ENVIRONMENT),
    Row("vault start now", 2, "unexpected extra argument"),
    Row("vault stop now", 2, "unexpected extra argument"),
    Row("vault status now", 2, "unexpected extra argument"),
    Row("vault env now", 2, "unexpected extra argument"),
    Row("vault setup", 2, "needs a token"),
    Row("vault setup --dry-run", 2, "needs a token"),
    Row("serve --listen 0.0.0.0:8250", 2, "is not loopback"),
    Row("serve --listen https://127.0.0.1:0", 2, "needs a certificate"),
    Row("serve --listen https://127.0.0.1:0 --tls-pki pki/broker", 2, "--tls-pki requires --tls-name"),
    Row("serve --listen https://127.0.0.1:0 --tls-pki pki", 2, "lacks the role"),
    Row("serve --listen https://127.0.0.1:0 --tls-pki pki/x --tls-name a/b", 2, "is not a host name"),
    Row("serve --listen ftp://127.0.0.1:1", 2, "is not an address"),
    Row("serve --listen unix:relative", 2, "is not an address"),
    Row("serve --tls-cert a --tls-key b", 2, "are for an address with https"),
    Row("serve --listen https://127.0.0.1:0 --tls-cert none --tls-key none", 2, "cannot use none"),
    Row("serve --health 192.0.2.1:1", 2, "cannot listen on http://192.0.2.1:1"),
    Row("vault setup --print toml", 2, "is not"),
    Row("vault setup --print sh --login-dir x", 2, "the printed script says how"),
    Row("vault setup --dry-run --login-dir x", 2, "--dry-run"),
    Row("vault setup --account ../x --print sh", 2, "is not a name"),
    Row("vault enrol reader --right acme/reporting", 2, "needs a token"),
    Row("vault enrol reader --token-file t", 2, "--right"),
    Row("vault enrol", 2, "give NAME with --right, or --list, or --remove"),
    Row("vault enrol reader --list", 2, "give NAME with --right, or --list, or --remove"),
    Row("vault enrol --list --remove reader", 2, "give NAME with --right, or --list, or --remove"),
    Row("vault enrol --remove Reader", 2, "is not a name"),
    Row("vault enrol reader --right acme/reporting --subject x", 2, "--issuer needs one of"),
    Row("vault enrol reader --right acme/reporting --issuer ci", 2, "--issuer needs one of"),
    Row("vault enrol reader --right acme/reporting --issuer ci --subject x --service-account a/b", 2, "needs one of"),
    Row("vault enrol reader --right acme/reporting --issuer ci --service-account a", 2, "is no service account"),
    Row("vault enrol reader --right acme/reporting --issuer ci --service-account a/:b", 2, "is no service account"),
    Row("vault enrol reader --right acme/reporting --issuer nobody --subject x", 2, "there is no issuer nobody"),
    Row("vault enrol reader --right acme/reporting --issuer ci --subject x --login-dir d", 2, "cannot be combined"),
    Row("policy render reporting", 2, "--right is missing"),
    Row("policy render reporting --right acme/reporting --issuer ci --subject x", 2, "--script is missing"),
    Row("policy render 'a b' --right acme/reporting", 2, "is not a name"),
    Row("policy check acme/reporting", 2, "give one of --token-file, --jwt-file and --consumer"),
    Row("policy check acme/reporting --consumer a --token-file reader.token", 2, "give one of --token-file"),
    Row("policy check acme/reporting --jwt-file reader.token", 5, "is not a JWT"),
    Row("policy check acme/reporting --consumer reader", 2, "needs a token"),
    Row("vault enrol reader --right acme --token-file t", 2, "names no application"),
    Row("vault enrol reader --right acme/nothing --token-file t", 2, "no application nothing"),
    Row("vault enrol reader --right nobody/x --token-file t", 2, "there is no account nobody"),
    Row("vault enrol reader --right acme/reporting --token-file roles", 2, "it is a directory"),
    Row(
        "vault enrol reader --right acme/reporting --token-file t",
        2,
        "broker policy render reader --right acme/reporting --script",
    ),
    Row(
        "vault enrol a --right acme/reporting --login-dir roles/.. --token-file secret_id",
        2,
        "secret_id is named for two different outputs",
    ),
    Row("config show now", 2, "unexpected extra argument"),
    Row("config check now", 2, "unexpected extra argument"),
)


def assert_told(ended: Ended, code: int, says: str) -> None:
    """Assert our own words on stderr, nothing on stdout that looks like a result, and the code."""
    assert ended.code == code, f"{ended.code}: {ended.out}{ended.err}"
    said = ended.out + ended.err
    assert says in said
    for never in ("Traceback", "a fault in the broker", "\x1b", PASSWORD, "pass-not-to-be-shown"):
        assert never not in said
    assert said.strip()


BY_STATE: Final = sorted(ROWS, key=lambda row: row.state)  # to set up a state takes longer than a command


@pytest.mark.parametrize("row", sampled(BY_STATE, every=12, rest=pytest.mark.slow), ids=str)
def test_bad_command_line_changes_nothing(harness: CliHarness, printed_runs: PrintedRuns, row: Row) -> None:
    """The commands that its hint names work."""
    harness.put(row.state)
    ended = harness.run(row.line, input=row.input)
    assert_told(ended, row.code, row.says)
    assert "is not stored yet" not in ended.err, "nothing is due"
    harness.assert_unchanged()
    printed_runs.assert_work(ended.err, row.state)


@pytest.mark.parametrize("command", sorted(GOOD))
def test_every_command_has_its_bad_lines(command: str) -> None:
    assert [row for row in ROWS if row.line.split()[:2] == command.split() or row.line.split()[:1] == [command]]


def test_tables_name_every_command() -> None:
    assert set(GOOD) == {name for name, _ in commands()}


def named(part: str) -> list[str]:
    return [name for name, good in GOOD.items() if part in good.line]


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_account_is_refused_everywhere(harness: CliHarness, name: str) -> None:
    harness.put("promoted")
    before = harness.look()
    for command in named("{account}"):
        assert_told(harness.run(harness.good(command, account=name)), GOOD[command].failing(2), "")
    assert harness.look() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_app_name_is_refused_everywhere(harness: CliHarness, name: str) -> None:
    harness.put("promoted")
    for command in named("{application}"):
        assert_told(harness.run(harness.good(command, application=name)), GOOD[command].failing(2), "is not a name")
    harness.assert_unchanged()


def test_an_unknown_account_is_named(harness: CliHarness) -> None:
    harness.put("promoted")
    for command in set(named("{account}")) - {"account add", "account import"}:
        ended = harness.run(harness.good(command, account="nobody"), input=b"x")
        assert_told(ended, GOOD[command].failing(2), "there is no account nobody")
    harness.assert_unchanged()


@pytest.mark.slow
@pytest.mark.parametrize("number", ["0", "-1", "one", "", "1.5", "999"])
def test_bad_number_is_refused_everywhere(harness: CliHarness, number: str) -> None:
    harness.put("promoted")
    for command in named("{number}"):
        assert_told(harness.run(harness.good(command, number=number)), 2, "")
    harness.assert_unchanged()


READING: Final = (
    "csr lint {}",
    "cert inspect {}",
    "cert import acme {}",
    "cert import acme reply.zip --server-ca {}",
    "account import acme {}",
    "account import acme --key {}",
    "account import acme outside.zip --password-file {}",
    "account import acme outside.zip --server-ca {}",
    "partner add {}",
    "password set acme --password-file {}",
    "bundle get acme/reporting --to b --consumer-token-file {}",
    "evidence verify --file {}",
    "evidence verify --all --key {}",
)


@pytest.fixture
def odd_files(harness: CliHarness) -> Iterator[list[str]]:
    """Files that nobody should hand over: gone, empty, binary, huge, a directory, one that cannot be opened."""
    harness.put("promoted")
    folder = harness.home / "odd"
    folder.mkdir()
    (folder / "empty").touch()
    (folder / "binary").write_bytes(random.Random(1).randbytes(5000))
    (folder / "text").write_text("nothing of the kind\nat all\n")
    os.truncate(os.open(folder / "huge", os.O_CREAT | os.O_WRONLY), 5 * 1024 * 1024)
    (folder / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as unopenable:
        unopenable.bind(str(folder / "socket"))
    names = ["missing", "empty", "binary", "text", "huge", "loop", "socket", "empty/x", "x" * 300]
    yield ["odd", *(f"odd/{name}" for name in names)]
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("line", sampled(READING, every=4, rest=pytest.mark.slow))
def test_odd_file_is_refused(harness: CliHarness, odd_files: list[str], line: str) -> None:
    harness.remember()
    for file in odd_files:
        ended = harness.run(line.format(file))
        assert ended.code in (2, 6), f"{file}: {ended}"
        assert_told(ended, ended.code, "")
    harness.assert_unchanged()


WRITING: Final = (
    "csr new acme --supersede --yes --out {}",
    "csr submit acme --out {}",
    "evidence export {}",
    "init --vault embedded --force --out {}",
    "vault enrol other --right acme/reporting --token-file {}",
    "vault enrol other --right acme/reporting --login-dir {}/x",
)


@pytest.mark.slow
@pytest.mark.parametrize("line", WRITING)
@pytest.mark.parametrize("place", ["/proc", "good.csr/x", "nowhere/x", "good.csr/x/y", "loop/x"])
def test_unwritable_place_is_reported_first(harness: CliHarness, line: str, place: str) -> None:
    harness.put("requested")
    if not (harness.home / "loop").is_symlink():
        (harness.home / "loop").symlink_to("loop")
    if "login-dir" in line and place == "nowhere/x":
        pytest.skip("it is made")
    before = harness.look()
    ended = harness.run(line.format(place), env={"VAULT_TOKEN": setup_token(harness) if "enrol" in line else ""})
    assert_told(ended, 2, "")
    assert harness.look().documents == before.documents


def setup_token(harness: CliHarness, *mounts: str) -> str:
    """Return a token with the rights of an administrator without root."""
    return admin_token(harness.saved.system.vault.admin, *mounts).reveal()


def administrator(harness: CliHarness) -> str:
    """Return a token that may do everything."""
    tokens = harness.saved.system.vault.admin.tokens
    assert tokens
    return tokens.token().reveal()


def test_a_device_is_written_to_and_stays(harness: CliHarness) -> None:
    """A file that replaced /dev/null would take the machine down."""
    harness.put("requested")
    os.mkfifo(harness.home / "pipe")
    reader = os.open(harness.home / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        harness.ok("csr new acme --out pipe")
        assert os.read(reader, 4096).startswith(b"-----BEGIN CERTIFICATE REQUEST-----")
        assert (harness.home / "pipe").is_fifo()
    finally:
        os.close(reader)
        (harness.home / "pipe").unlink()
    harness.assert_unchanged()


def test_target_of_a_link_is_replaced(harness: CliHarness) -> None:
    harness.put("requested")
    (harness.home / "target").write_text("old")
    (harness.home / "link").symlink_to("target")
    harness.ok("csr new acme --out link")
    assert (harness.home / "link").is_symlink()
    assert (harness.home / "target").read_text().startswith("-----BEGIN")


ENVIRONMENTS: Final = [
    ({"BROKER_CONFIG": "nowhere.toml"}, 2, "cannot read nowhere.toml"),
    ({"BROKER_CONFIG": "roles"}, 2, "cannot read roles"),
    ({"BROKER_CONFIG": "reply.zip"}, 2, "is not UTF-8 text"),
    ({"VAULT_SKIP_VERIFY": "1"}, 2, "does not talk to a Vault that it cannot verify"),
    ({"VAULT_ADDR": "vault.example"}, 2, "not an address of Vault"),
    ({"VAULT_ADDR": "https://user:planted@vault.example"}, 2, "carries more than host"),
    ({"VAULT_ADDR": "https://vault.example", "VAULT_CACERT": "/nowhere/ca.pem"}, 2, "/nowhere/ca.pem"),
    ({"VAULT_ADDR": "unix:///nowhere/vault.sock"}, 3, "was not reached"),
    ({"BROKER_CONFIG": "plain.toml", "VAULT_TOKEN": "hvs.wrong"}, 5, "Vault denies"),
    ({"BROKER_CONFIG": "plain.toml", "VAULT_TOKEN": "two\nlines"}, 2, "cannot be sent"),
    ({"BROKER_CONFIG": "plain.toml"}, 2, "no way to log in"),
    ({"BROKER_CONFIG": "/dev/zero"}, 2, "/dev/zero has more than"),
    ({"BROKER_MOUNT": "another"}, 5, "broker vault setup"),
    ({"BROKER_MOUNT": "../x"}, 2, "is not a mount of Vault"),
    ({"BROKER_TIMEOUT": "never"}, 2, "'never' is not a duration"),
    ({"BROKER_TTL": "-1h"}, 2, "is not a duration"),
    ({"BROKER_ACTOR": "a\x1bb"}, 2, "control character"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "code", "says"), ENVIRONMENTS, ids=lambda value: str(value)[:60])
def test_every_command_reports_bad_settings(harness: CliHarness, changes: dict[str, str], code: int, says: str) -> None:
    harness.put("promoted")
    before = harness.look()
    for command in set(ASKING) - {"doctor", "vault status", "vault enrol", *NEED_SERVERS}:
        with stamina.set_testing(True, attempts=1):
            ended = harness.run(harness.good(command), input=GOOD[command].input, env=changes)
        assert_told(ended, GOOD[command].failing(code), says)
    assert harness.look() == before


@pytest.mark.parametrize(("changes", "code", "says"), ENVIRONMENTS, ids=lambda value: str(value)[:60])
def test_those_that_tell_about_vault_tell_it(
    harness: CliHarness, changes: dict[str, str], code: int, says: str
) -> None:
    harness.put("promoted")
    with stamina.set_testing(True, attempts=1):
        status, doctor = (harness.run(line, env=changes) for line in ("vault status -o json", "doctor -o json"))
    assert status.code == code
    assert doctor.code == (6 if doctor.out.startswith("{\n") else code)
    assert doctor.json["success"] is False
    assert says in doctor.out + status.out + status.err
    harness.assert_unchanged()


@pytest.mark.parametrize("line", ["config show", "config show -o json", "config check", "doctor -o json"])
def test_settings_hide_secrets_of_addresses(harness: CliHarness, line: str) -> None:
    harness.put("promoted")
    ended = harness.run(line, env={"VAULT_ADDR": "https://user:planted@vault.example"})
    assert_told(ended, 2, "carries more than host")
    assert "planted" not in ended.out + ended.err
