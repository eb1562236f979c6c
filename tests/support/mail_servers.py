"""Real mail servers on loopback: Postfix takes mails and returns bounces, Dovecot keeps them and knows the logins.

Both run in the foreground, from directories of their own, and touch no service of this machine. Users log in with
`PASSWORD`, or with a token that `MailServers.token` signs. A mail to an address of no user comes back as a bounce.
"""

from __future__ import annotations

import email
import email.policy
import imaplib
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.pki import Ca, a_ca, a_key, a_leaf
from tests.support.ports import free_ports

__all__ = ["BROKER", "BUREAU", "DESK", "GREYLISTED", "PASSWORD", "REFUSED", "MailServers", "mail_servers", "running"]

BROKER: Final = "broker@company.test"  # the broker's own mailbox
DESK: Final = "desk@partner.test"  # the partner's
DESK_ABROAD: Final = "desk@xn--plda-bpa.test"  # in the domain példa.test
TEAM: Final = "team@company.test"
BUREAU: Final = "büro@intl.test"  # a mailbox of Postfix's own: Dovecot takes no such name
NOBODY: Final = "nobody@partner.test"  # no user has it: a mail to it bounces
REFUSED: Final = "refused@partner.test"  # refused when it is named
GREYLISTED: Final = "later@partner.test"  # "try later"
PASSWORD: Final = "m4il-pl4nted-p4ssword"  # of every user
_USERS: Final = (BROKER, DESK, DESK_ABROAD, TEAM)  # of Dovecot
LARGEST: Final = 200_000  # bytes of a mail
PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin"
_PATIENCE: Final = 30.0  # seconds; a busy machine
_QUEUES: Final = ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved", "trace"]
_NUMBERS: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class MailServers:
    """The running servers. `smtp` and `imap` begin TLS by STARTTLS, `smtps` and `imaps` with the first byte."""

    folder: Path
    ca_file: Path
    smtp: int
    smtps: int
    imap: int
    imaps: int

    host: Final = "127.0.0.1"

    def token(self, user: str = BROKER, *, lifetime: float = 3600, signer: str = "mail tokens") -> str:
        """Return a token for `user` that both servers take; with another `signer`, one that they refuse."""
        now = time.time()
        claims = {"sub": user, "email": user, "iat": int(now) - 60, "exp": int(now + lifetime)}
        head = {"alg": "RS256", "typ": "JWT", "kid": "one"}
        signed = b".".join(_in_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = a_key(signer).sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return (signed + b"." + _in_base64(signature)).decode()

    def mails(self, user: str) -> list[EmailMessage]:
        """Return the mails in the inbox of `user`, the oldest first."""
        files = [file for name in ("new", "cur") for file in (self.folder / "mail" / user / name).glob("*")]
        return [email.message_from_bytes(f.read_bytes(), policy=email.policy.default) for f in sorted(files)]

    def arrived(self, user: str, fits: Callable[[EmailMessage], bool] = lambda _: True) -> EmailMessage:
        """Wait for a mail in the inbox of `user` that fits, and return it."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if found := [message for message in self.mails(user) if fits(message)]:
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"no mail for {user}\n{self.log}")

    def put(self, user: str, content: bytes) -> None:
        """Put a mail into the inbox of `user`, as it is."""
        folder = self.folder / "mail" / user
        for name in ("cur", "new", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        name = f"{time.time():.6f}.{next(_NUMBERS)}.test"
        (folder / "tmp" / name).write_bytes(content)
        _give(self.folder / "mail", _mail_user())
        (folder / "tmp" / name).rename(folder / "new" / name)

    def empty(self) -> None:
        """Remove every mail."""
        for folder in (self.folder / "mail").glob("*"):
            shutil.rmtree(folder)

    @property
    def log(self) -> str:
        """What both servers logged."""
        files = [self.folder / name for name in ("dovecot.log", "postfix.log")]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())


@pytest.fixture(scope="session")
def mail_servers_session() -> Iterator[MailServers]:
    with running() as servers:
        yield servers


@pytest.fixture
def mail_servers(mail_servers_session: MailServers) -> MailServers:
    """Both servers, without a mail. Mark the test with peer("dovecot", "postfix") and rights("chown")."""
    mail_servers_session.empty()
    return mail_servers_session


@contextmanager
def running() -> Iterator[MailServers]:
    """Run Postfix and Dovecot until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="broker-mail-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        smtp, smtps, imap, imaps, auth, lmtp = free_ports(6)
        before = os.umask(0o022)  # a command that ran in this process may have set a strict one
        try:
            servers = MailServers(folder, _certificates(folder), smtp, smtps, imap, imaps)
            _set_up_dovecot(servers, auth, lmtp)
            _set_up_postfix(servers, auth, lmtp)
        finally:
            os.umask(before)
        dovecot = ("dovecot", "-F", "-c", folder / "dovecot.conf")
        postfix = ("/usr/lib/postfix/sbin/master", "-d", "-c", folder / "postfix")
        with _served(dovecot, (imap, imaps, auth, lmtp), servers), _served(postfix, (smtp, smtps), servers):
            _await_logins(servers)
            yield servers


def _certificates(folder: Path) -> Path:
    now = datetime.now(UTC)
    ca: Ca = a_ca("Mail CA", not_before=now - timedelta(days=1), not_after=now + timedelta(days=10))
    names = (x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
    eku, key = [ExtendedKeyUsageOID.SERVER_AUTH], a_key("mail server")
    end = now + timedelta(days=9)
    leaf = a_leaf(ca, key, "localhost", not_before=now - timedelta(hours=1), not_after=end, eku=eku, extra=[names])
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(private + leaf.public_bytes(Encoding.PEM))
    (folder / "ca.pem").write_text(ca.pem)
    return folder / "ca.pem"


def _set_up_dovecot(servers: MailServers, auth: int, lmtp: int) -> None:
    folder, user = servers.folder, _mail_user()
    public = a_key("mail tokens").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    place = folder / "keys" / "default" / "RS256"
    place.mkdir(parents=True)
    (place / "one").write_bytes(public)
    (folder / "oauth2.conf").write_text(
        f"introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={folder}/keys/\n"
        "username_attribute = email\n"
    )
    (folder / "users").write_text("".join(f"{name}:{{PLAIN}}{PASSWORD}::::::\n" for name in _USERS))
    (folder / "mail").mkdir()
    _give(folder / "mail", user)
    own = "" if os.geteuid() == 0 else f"default_internal_user = {user.pw_name}\ndefault_login_user = {user.pw_name}\n"
    (folder / "dovecot.conf").write_text(
        f"""base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/dovecot.log
{own}listen = 127.0.0.1
protocols = imap lmtp
ssl = required
ssl_cert = <{folder}/server.pem
ssl_key = <{folder}/server.pem
auth_mechanisms = plain login xoauth2 oauthbearer
auth_failure_delay = 0
auth_verbose = yes
mail_uid = {user.pw_uid}
mail_gid = {user.pw_gid}
first_valid_uid = {min(user.pw_uid, 500)}
mail_location = maildir:{folder}/mail/%u
mail_fsync = never
lda_mailbox_autocreate = yes
postmaster_address = postmaster@company.test
hostname = mail.company.test
passdb {{
  driver = passwd-file
  mechanisms = plain login
  args = username_format=%u {folder}/users
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {auth}
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  process_min_avail = 1
  inet_listener imap {{
    port = {servers.imap}
  }}
  inet_listener imaps {{
    port = {servers.imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
"""
    )


def _set_up_postfix(servers: MailServers, auth: int, lmtp: int) -> None:
    folder = servers.folder
    queue, config = folder / "queue", folder / "postfix"
    config.mkdir()
    for name, mode, owner in (
        *((name, 0o700, "postfix") for name in (*_QUEUES, "private")),
        ("public", 0o710, "postfix"),
        ("maildrop", 0o730, "postfix"),
        ("pid", 0o755, "root"),
        ("../data", 0o700, "postfix"),
    ):
        place = queue / name
        place.mkdir(parents=True)
        place.chmod(mode)
        shutil.chown(place, owner, "postdrop" if name in ("public", "maildrop") else None)
    (config / "main.cf").write_text(
        f"""compatibility_level = 3.6
queue_directory = {queue}
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.2/32
myhostname = mail.company.test
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = company.test, partner.test, xn--plda-bpa.test, intl.test
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
transport_maps = inline:{{ {{ intl.test = virtual: }} }}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = inline:{{ {{ {BUREAU} = {BUREAU}/ }} }}
virtual_uid_maps = static:{_mail_user().pw_uid}
virtual_gid_maps = static:{_mail_user().pw_gid}
default_transport = error:this server sends nothing to others
smtpd_reject_unlisted_recipient = no
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{
    {{ {REFUSED} = 550 5.1.1 no such mailbox }},
    {{ {GREYLISTED} = 450 4.2.0 greylisted, try again later }} }}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth}
smtpd_tls_auth_only = yes
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/server.pem
smtpd_client_connection_rate_limit = 0
smtpd_hard_error_limit = 100
smtpd_soft_error_limit = 100
smtpd_error_sleep_time = 0
message_size_limit = {LARGEST}
bounce_queue_lifetime = 0
maximal_queue_lifetime = 1h
in_flow_delay = 0
"""
    )
    (config / "master.cf").write_text(
        f"""127.0.0.1:{servers.smtp} inet n - n - - smtpd
127.0.0.1:{servers.smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
error     unix - - n - - error
retry     unix - - n - - error
lmtp      unix - - n - - lmtp
virtual   unix - n n - - virtual
anvil     unix - - n - 1 anvil
scache    unix - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""
    )


def _mail_user() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def _give(folder: Path, user: pwd.struct_passwd) -> None:
    for place in (folder, *folder.rglob("*")):
        os.chown(place, user.pw_uid, user.pw_gid)


@contextmanager
def _served(command: Sequence[str | Path], ports: Sequence[int], servers: MailServers) -> Iterator[None]:
    quiet: Any = subprocess.DEVNULL
    process = subprocess.Popen(
        command, env={"PATH": PATH}, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        for port in ports:
            _await(process, port, servers)
        yield
    finally:
        with suppress(ProcessLookupError):  # its daemons are in its group
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _await(process: subprocess.Popen[bytes], port: int, servers: MailServers) -> None:
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise AssertionError(f"{process.args!r} does not listen on {port}\n{servers.log}")


def _await_logins(servers: MailServers) -> None:
    """Wait until Dovecot knows its users: it listens before that, on a busy machine for a second."""
    context, until = ssl.create_default_context(cafile=str(servers.ca_file)), time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        with (
            suppress(imaplib.IMAP4.error, OSError),
            imaplib.IMAP4_SSL("127.0.0.1", servers.imaps, ssl_context=context) as one,
        ):
            one.login(BROKER, PASSWORD)
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody can log in\n{servers.log}")


def _in_base64(octets: bytes) -> bytes:
    return urlsafe_b64encode(octets).rstrip(b"=")
