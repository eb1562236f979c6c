"""The partner's answer to a canary."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from msgspec import Struct

from broker.model.generation import Application


class Verdict(Enum):
    """The meaning of a canary's answer for the set: its name, a message for people, and a hint if there is one."""

    OK = "ok", "the partner accepted certificate, login and client_id"
    HANDSHAKE = (
        "handshake",
        "the TLS handshake with the partner failed",
        "compare TLS versions with the partner's documentation; a proxy on the way can be the cause too",
    )
    CERTIFICATE_REJECTED = (
        "certificate_rejected",
        "the partner's server refused the client certificate",
        "a new certificate may take hours to be known there; if it stays so, send the partner its fingerprint",
    )
    LOGIN_REJECTED = (
        "login_rejected",
        "the partner refused login and password, or says that they may not be used",
        "nothing tries again automatically, since partners lock accounts: check the password with the partner first; "
        "then broker password set ACCOUNT",
    )
    CLIENT_REJECTED = (
        "client_rejected",
        "the partner refused the application's client_id",
        "compare it with the partner's e-mail, and correct it: broker app set ACCOUNT/APPLICATION --client-id ID",
    )
    NOT_SUBSCRIBED = (
        "not_subscribed",
        "the partner knows the client_id, but its application is not subscribed to this API",
        "ask the partner to subscribe the application, and to which plan",
    )
    ADDRESS_REFUSED = (
        "address_refused",
        "the partner does not allow the address that the request came from",
        "ask the partner to allow the address of this host, or of its proxy: broker config show",
    )
    WRONG_CA = (
        "wrong_ca",
        "the server was not verified to be the partner's, so no secret was sent",
        "if the partner announced a new server CA, compare its fingerprint: "
        "broker trust set ACCOUNT FILE --accept-ca SHA256",
    )
    QUOTA = "quota", "the partner's quota is used up", "wait, or ask the partner for a higher quota"
    PROXY = (
        "proxy",
        "the proxy on the way to the partner gave no connection",
        "see which proxy and which login file are used: broker config show",
    )
    PARTNER_DOWN = "partner_down", "the partner's answer says nothing about the set"

    message: str
    hint: str
    refuses: bool  # the partner refused the set, or was not verified; false if the answer says nothing about it

    def __new__(cls, value: str, message: str = "", hint: str = "") -> Verdict:
        """Make the member whose value is its name."""
        made = object.__new__(cls)
        made._value_, made.message, made.hint = value, message, hint
        made.refuses = value not in ("ok", "quota", "proxy", "partner_down")
        return made

    def remedy(self, account: str, application: str) -> str:
        """Return the hint for an account and one of its applications."""
        return self.hint.replace("ACCOUNT", account).replace("APPLICATION", application)


class CanaryResult(Struct, frozen=True):
    """The partner's answer to a canary."""

    verdict: Verdict
    detail: str = ""  # for people, nothing secret
    wait: timedelta | None = None  # the partner asked us to back off for so long
    application: Application | None = None  # whose client_id was sent
    expired: datetime | None = None  # when the certificate that was sent ended, if it was over
