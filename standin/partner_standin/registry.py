"""The partner's customers: logins, passwords, client_ids, and issued certificates.

Stored in `DIR/state.json` (0600), passwords as salted scrypt hashes only. Thread-safe.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec

from partner_standin.authorities import write_atomically


class UnknownLoginError(LookupError):
    """The login or certificate is unknown."""


@dataclass(frozen=True, slots=True)
class _Hash:
    """A salted scrypt hash, both parts in base64."""

    salt: str
    digest: str

    @classmethod
    def of(cls, value: str, salt: bytes | None = None) -> _Hash:
        """Return the hash of `value`, with a new salt unless one is given."""
        salt = salt or os.urandom(16)
        digest = hashlib.scrypt(value.encode(), salt=salt, n=2**12, r=8, p=1)
        return cls(base64.b64encode(salt).decode(), base64.b64encode(digest).decode())

    def fits(self, value: str) -> bool:
        """Return whether `value` is what was hashed."""
        return hmac.compare_digest(_Hash.of(value, base64.b64decode(self.salt)).digest, self.digest)


@dataclass(frozen=True, slots=True)
class Application:
    """A client_id, and the hash of its secret if it has one."""

    name: str
    client_id: str
    secret: _Hash | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """A login. `passwords` are the valid ones: the newest, and an older one during an overlap."""

    login: str
    passwords: tuple[_Hash, ...]
    applications: tuple[Application, ...] = ()
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that the desk issued. `serial` is lower-case hex; `issuer` names the CA that signed."""

    serial: str
    login: str
    issuer: str
    not_after: datetime
    revoked_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class _State:
    """Everything that survives a restart, except the CAs."""

    accounts: dict[str, Account]
    issued: tuple[Issued, ...] = ()


class Registry:
    """The owner of `_State`. Every change is on disk before it is answered."""

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._state = msgspec.json.decode(path.read_bytes(), type=_State) if path.exists() else _State({})
        self._failures: dict[str, int] = {}
        self._memo_key = os.urandom(32)
        self._memo: dict[tuple[str, str], bytes] = {}  # keyed digests of accepted values: scrypt takes 10 ms

    # accounts

    @property
    def accounts(self) -> tuple[Account, ...]:
        """All accounts, in the order of their logins."""
        return tuple(account for _, account in sorted(self._state.accounts.items()))

    def account(self, login: str) -> Account:
        """Return the account of `login` or raise `UnknownLoginError`."""
        try:
            return self._state.accounts[login]
        except KeyError:
            raise UnknownLoginError("unknown login") from None

    def add_account(self, login: str, password: str) -> Account:
        """Register `login` with one application, `default`; for a known login, change only the password."""
        if not login or ":" in login or not login.isprintable() or not password:
            raise ValueError("a login needs a name without colon or control characters, and a password")
        with self._lock:
            if login in self._state.accounts:
                return self.set_password(login, password)
            account = Account(login, (_Hash.of(password),), (Application("default", str(uuid.uuid4())),))
            return self._keep(account)

    def set_password(self, login: str, password: str, *, overlap: bool = False) -> Account:
        """Change the password; with `overlap` the last one stays valid until the next change."""
        if not password:
            raise ValueError("the password is empty")
        with self._lock:
            account = self.account(login)
            older = account.passwords[:1] if overlap else ()
            return self._keep(replace(account, passwords=(_Hash.of(password), *older)))

    def unlock(self, login: str) -> Account:
        """Unlock an account."""
        with self._lock:
            self._failures.pop(login, None)
            return self._keep(replace(self.account(login), locked=False))

    def add_application(self, login: str, name: str) -> tuple[Application, str]:
        """Register an application, or give a known one a new secret; return it with the secret, shown only here."""
        with self._lock:
            account = self.account(login)
            known = next((app.client_id for app in account.applications if app.name == name), str(uuid.uuid4()))
            secret = base64.urlsafe_b64encode(os.urandom(24)).decode()
            application = Application(name, known, _Hash.of(secret))
            others = tuple(app for app in account.applications if app.name != name)
            self._keep(replace(account, applications=(*others, application)))
            return application, secret

    def client_id(self, login: str, name: str) -> str:
        """Return the client_id of an application; the first call registers it."""
        with self._lock:
            account = self.account(login)
            for application in account.applications:
                if application.name == name:
                    return application.client_id
            application = Application(name, str(uuid.uuid4()))
            self._keep(replace(account, applications=(*account.applications, application)))
            return application.client_id

    # what a request is checked against

    def admits(self, login: str, password: str, *, lockout: int | None) -> bool:
        """Return whether the password is right; the `lockout`th failure in a row locks the account."""
        account = self._state.accounts.get(login)
        if account is None:
            return False
        if not account.locked and any(self._fits(hashed, password) for hashed in account.passwords):
            self._failures.pop(login, None)
            return True
        with self._lock:
            self._failures[login] = self._failures.get(login, 0) + 1
            if lockout is not None and self._failures[login] >= lockout and not account.locked:
                self._keep(replace(self.account(login), locked=True))
        return False

    def application_of(self, login: str, client_id: str) -> Application | None:
        """Return the application of `login` with this client_id, or None."""
        account = self._state.accounts.get(login)
        return next((app for app in account.applications if app.client_id == client_id), None) if account else None

    def secret_fits(self, application: Application, secret: str) -> bool:
        """Return whether `secret` is the secret of `application`."""
        return application.secret is not None and self._fits(application.secret, secret)

    # certificates

    @property
    def issued(self) -> tuple[Issued, ...]:
        """Every issued certificate, the oldest first."""
        return self._state.issued

    def record(self, issued: Issued, *, revoke_older_from: datetime | None) -> None:
        """Record a new certificate; revoke the login's older ones from `revoke_older_from` on, if it is given."""
        with self._lock:
            older = self._state.issued
            if revoke_older_from is not None:
                older = tuple(
                    replace(one, revoked_from=one.revoked_from or revoke_older_from)
                    if one.login == issued.login
                    else one
                    for one in older
                )
            self._save(replace(self._state, issued=(*older, issued)))

    def revoke(self, serial: str, at: datetime) -> Issued:
        """Revoke a certificate from `at` on; raise `UnknownLoginError` for an unknown serial."""
        with self._lock:
            one = next((one for one in self._state.issued if one.serial == serial), None)
            if one is None:
                raise UnknownLoginError("no certificate with this serial was issued here")
            revoked = replace(one, revoked_from=at)
            self._save(replace(self._state, issued=tuple(revoked if i is one else i for i in self._state.issued)))
            return revoked

    def revoked(self) -> frozenset[str]:
        """Return the serials that are revoked now."""
        if not any(one.revoked_from for one in self._state.issued):
            return frozenset()
        now = self._clock()
        return frozenset(one.serial for one in self._state.issued if one.revoked_from and one.revoked_from <= now)

    def _fits(self, hashed: _Hash, value: str) -> bool:
        mark = hmac.digest(self._memo_key, value.encode(), "sha256")
        slot = (hashed.salt, hashed.digest)
        if hmac.compare_digest(self._memo.get(slot, b""), mark):
            return True
        if not hashed.fits(value):
            return False
        self._memo[slot] = mark
        return True

    def _keep(self, account: Account) -> Account:
        self._save(replace(self._state, accounts={**self._state.accounts, account.login: account}))
        return account

    def _save(self, state: _State) -> None:
        write_atomically(self._path, msgspec.json.encode(state))
        self._state = state
