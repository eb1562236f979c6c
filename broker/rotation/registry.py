"""Accounts, their applications and secrets, and the CAs of the partner's server: the operator's use-cases."""

from collections.abc import Sequence
from typing import Final

from broker.errors import ConflictError, RefusedError
from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.changes.registering import (
    AccountSettings,
    account_set,
    added,
    application_removed,
    application_set,
    resumed,
    secret_set,
    subject_set,
    suspended,
    trust_set,
)
from broker.model.changes.rotating_password import rotation_aborted, rotation_begun, step_confirmed
from broker.model.clock import Stamp
from broker.model.generation import secret_refs
from broker.model.names import AccountName
from broker.model.password_rotation import PasswordStep
from broker.model.secret import Secret
from broker.model.subject import Subject
from broker.pki.certificates import ca_set
from broker.pki.reply import ReplyParts
from broker.rotation.amend import Amended, UseCase
from broker.rotation.ports import Secrets, Version
from broker.rotation.receive import server_cas_named

_GIVEN: Final = ("profile", "environment", "login", "base_url", "subject", "contacts")  # by `account add`
SLOTS: Final = 16  # to try; killed commands may have taken the first ones


class Registry(UseCase, frozen=True):
    """The operator's use-cases."""

    secrets: Secrets

    def add_account(self, account: Account) -> Account:
        """Store a new account, or return the stored one if it is the same; raise `ConflictError` if it is not."""
        after = added(account, by=self.actor)
        try:
            self.accounts.write(after, replacing=Version(0))
        except ConflictError:
            after = self.seen(account.name)
            if any(getattr(after, field) != getattr(account, field) for field in _GIVEN):
                raise ConflictError(
                    f"account {account.name} exists already, for login {after.login} at {after.base_url}",
                    hint=f"broker account show {account.name}",
                ) from None
        self.settle(account.name)
        return after

    def set_account(
        self,
        name: AccountName,
        settings: AccountSettings,
        subject: Subject | None = None,
    ) -> Amended:
        """Replace settings and subject; None keeps what is stored."""

        def change(account: Account, stamp: Stamp) -> Account:
            return subject_set(account_set(account, settings, stamp), subject or account.subject, stamp)

        return self.settled(name, change)

    def suspend(self, name: AccountName, reason: str) -> bool:
        """Issue nothing of the account until it is resumed; return whether anything changed. Rotation goes on."""
        return self.settled(name, lambda account, stamp: suspended(account, reason, stamp)).changed

    def resume(self, name: AccountName) -> bool:
        """Issue bundles of a suspended account again; return whether anything changed."""
        return self.settled(name, resumed).changed

    def add_application(self, name: AccountName, application: str, client_id: str) -> Account:
        """Add an application; raise `ConflictError` if it exists with another client_id. "" leaves the one it has."""

        return self.settled(
            name, lambda account, stamp: application_added(account, application, client_id, stamp)
        ).account

    def set_application(self, name: AccountName, application: str, client_id: str) -> Amended:
        """Give an application another client_id. Raise `UnknownNameError`."""

        def change(account: Account, stamp: Stamp) -> Account:
            account.application(application)
            return application_set(account, application, client_id, stamp)

        return self.settled(name, change)

    def remove_application(self, name: AccountName, application: str) -> None:
        """Remove an application; raise `UnknownNameError` if the account has none of this name."""
        with self.settling(name):  # if it is gone, a killed command may have removed it
            self.seen(name).application(application)
            self.amend(name, lambda account, stamp: application_removed(account, application, stamp))

    def set_secret(self, name: AccountName, secret: Secret[str], called: str = PASSWORD) -> Account:
        """Store `secret` under the next free number, then name it in the account: two writes, in this order.

        A taken number was written by a command that was killed before its second write, or by a concurrent one; the
        operator may not read it to find out. So it is skipped, and doomed by the change that names the next.
        """
        seen, stamp = self.seen(name), self.stamp()  # a wrong clock is refused here
        number = self._stored(seen, called, secret)
        return self.settled(name, lambda account, _: secret_set(account, called, number, stamp)).account

    def _stored(self, account: Account, called: str, secret: Secret[str]) -> int:
        first = 1 + account.secrets.get(called, 0)
        for number in range(first, first + SLOTS):
            (ref,) = secret_refs({called: number})
            try:
                self.secrets.store(account.name, ref, secret)
            except ConflictError:
                continue
            return number
        raise ConflictError(f"{called} numbers {first} to {first + SLOTS - 1} of {account.name} are all taken")

    def rotate_password(self, name: AccountName) -> Account:
        """Begin to replace the current password, unless a rotation is under way."""
        return self.settled(name, rotation_begun).account

    def confirm_password_step(self, name: AccountName, step: PasswordStep, note: str) -> Account:
        """Record that a person did a step of the password rotation, after all before it. The last one ends it."""
        with self.settling(name):  # if none is under way, a killed command may have ended it
            return self.amend(name, lambda account, stamp: step_confirmed(account, step, note, stamp)).account

    def abort_password_rotation(self, name: AccountName, reason: str) -> Account:
        """End the password rotation, and reject the candidate that it made."""
        with self.settling(name):
            return self.amend(name, lambda account, stamp: rotation_aborted(account, reason, stamp)).account

    def set_trust(self, name: AccountName, parts: ReplyParts, accept: Sequence[str], *, replacing: bool) -> Account:
        """Verify the server by those CAs of a reply that a person accepts by their SHA-256 fingerprints.

        Unless `replacing`, those of the current generation verify it too: the partner changes its certificate some day.
        Repeating it changes nothing. Raise `RefusedError` if it holds no CA with such a fingerprint, or if none is
        accepted.
        """
        if not accept:
            raise RefusedError("no CA of the partner's server was accepted", hint=_offered(parts))
        named = "".join(parts.accepted(fingerprint).pem for fingerprint in accept)

        def change(account: Account, stamp: Stamp) -> Account:
            return trust_set(account, ca_set(named), stamp) if replacing else server_cas_named(account, named, stamp)

        return self.settled(name, change).account


def application_added(account: Account, application: str, client_id: str, stamp: Stamp) -> Account:
    """Add an application; raise `ConflictError` if it exists with another client_id. "" leaves the one it has."""
    there = next((a for a in account.applications if a.name == application), None)
    if there and client_id and there.client_id not in ("", client_id):
        raise ConflictError(
            f"{account.name}/{application} exists already, with another client_id",
            hint=f"broker app set {account.name}/{application} --client-id ID changes it",
        )
    return application_set(account, application, client_id, stamp)


def _offered(parts: ReplyParts) -> str:
    found = "; ".join(d.named for d in parts.authorities)
    if not found:
        return "the file has no CA certificate: ask the partner for the one that signed its server's certificate"
    return f"compare fingerprints with the partner over another channel, then: --accept-ca SHA256. The file has {found}"
