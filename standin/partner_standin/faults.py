"""The fault switches: one table says what each does and which canary verdict it should cause, one board holds them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from partner_standin.durations import parse_duration

__all__ = ["FAULTS", "Active", "Fault", "Faults", "UnknownFaultError"]


MOST_DIGITS: Final = 9


class UnknownFaultError(ValueError):
    """No fault has this name, or it does not take this value."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table. `value` shows what may follow `=`, `default` stands in where nothing does."""

    name: str
    place: str
    what: str
    verdict: str
    value: str = ""
    default: str = ""
    needed: bool = False

    def checked(self, value: str | None) -> str:
        """Return the value to switch on with; raise `UnknownFaultError` for one this fault does not take."""
        if value is None and self.needed:
            raise UnknownFaultError(f"{self.name} needs a value: {self.value}")
        given = self.default if value is None else value
        if not self.value and given:
            raise UnknownFaultError(f"{self.name} takes no value")
        if self.value and not _accepts(self.value)(given):
            raise UnknownFaultError(f"{self.name} takes {self.value}, not {given[:40]!r}")
        return given


def _accepts(syntax: str) -> Callable[[str], bool]:
    return {"DURATION": _is_duration, "COUNT": _is_count}.get(syntax, lambda value: value in syntax.split("|"))


def _is_duration(value: str) -> bool:
    try:
        parse_duration(value)
    except ValueError:
        return False
    return True


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= MOST_DIGITS


_DESERVED = "of every certificate, or (deserved) of a missing, expired, not yet valid or revoked one"

FAULTS: Final[tuple[Fault, ...]] = (
    # the handshake, and before
    Fault("tls-version", "tls", "speaks this version of TLS only", "ok", "1.2|1.3|both", needed=True),
    Fault("closed-at-once", "tls", "closes the connection before the handshake: a bare EOF", "partner_down"),
    Fault("reset-at-once", "tls", "resets the connection before the handshake", "partner_down"),
    Fault("handshake-failure", "tls", "shares no cipher with anybody (TLS 1.2): alert handshake_failure", "handshake"),
    Fault("handshake-garbage", "tls", "answers the handshake in plain text", "handshake"),
    Fault("handshake-stall", "tls", "is silent for so long before the handshake", "handshake", "DURATION", "5s"),
    Fault("wrong-ca", "tls", "presents a certificate of a CA nobody was told about", "wrong_ca"),
    Fault("wrong-host", "tls", "presents a certificate for another host", "wrong_ca"),
    Fault("expired-server", "tls", "presents a certificate that expired yesterday", "wrong_ca"),
    Fault("certificate-alert", "tls", "knows no issuing CA: alert unknown_ca for every one", "certificate_rejected"),
    Fault(
        "certificate-nginx",
        "tls",
        f"lets the handshake pass and answers HTTP 400 as nginx does (495, 496): {_DESERVED}",
        "certificate_rejected",
        "always|deserved",
        "always",
    ),
    Fault(
        "certificate-json",
        "tls",
        f'lets the handshake pass and answers {{"code":"495"…}}: {_DESERVED}',
        "certificate_rejected",
        "always|deserved",
        "always",
    ),
    Fault(
        "certificate-eof",
        "tls",
        f"lets the handshake pass and closes without an alert: {_DESERVED}",
        "certificate_rejected",
        "always|deserved",
        "always",
    ),
    # the gate: login and client_id
    Fault("login-rejected", "gate", "rejects every login and password", "login_rejected"),
    Fault(
        "login-lockout",
        "gate",
        "locks an account after so many bad passwords in a row, until the desk unlocks it; a locked account is "
        "answered as a bad password is",
        "login_rejected",
        "COUNT",
        "3",
    ),
    Fault("client-rejected", "gate", "rejects every client_id", "client_rejected"),
    Fault(
        "cn-mismatch",
        "gate",
        "how a login with another login's certificate is answered; 403 unless switched",
        "login_rejected",
        "off|401|403",
        "401",
    ),
    # quota
    Fault("quota-day", "quota", "allows so many requests in 24 hours, then 429", "quota", "COUNT", "0"),
    Fault("quota-burst", "quota", "allows so many requests in a second, then 429", "quota", "COUNT", "0"),
    # out of order
    Fault("status-500", "answer", "answers 500 with an error body", "partner_down"),
    Fault("status-503", "answer", "answers 503 with Retry-After", "partner_down", "DURATION", "30s"),
    Fault("html-403", "answer", "answers 403 with a firewall's HTML page", "partner_down"),
    Fault("empty-body", "answer", "answers 200 and nothing", "partner_down"),
    Fault("not-json", "answer", "answers 200 with half a JSON document", "partner_down"),
    Fault("reset-mid-body", "answer", "resets the connection in the middle of the body", "partner_down"),
    Fault("cut-mid-body", "answer", "closes the connection in the middle of the body", "partner_down"),
    Fault("garbage", "answer", "answers bytes that are no HTTP", "partner_down"),
    Fault(
        "slow-answer",
        "answer",
        "waits so long before it answers; ok for the patient",
        "partner_down",
        "DURATION",
        "5s",
    ),
    Fault("slow-body", "answer", "spreads the body over so long; ok for the patient", "partner_down", "DURATION", "5s"),
    # harmless oddities
    Fault("no-timestamp", "answer", "leaves the timestamp out of error bodies, as live ones may", "ok"),
    Fault("echo-client-id", "answer", "repeats the client_id in every link", "ok"),
    # the desk
    Fault("desk-delay", "desk", "signs so long after the request came in", "ok", "DURATION", needed=True),
    Fault("desk-lifetime", "desk", "issues certificates for so long", "ok", "DURATION", needed=True),
    Fault("desk-not-before", "desk", "moves their first moment by so much", "ok", "DURATION", needed=True),
    Fault("desk-new-ca", "desk", "makes a new issuing CA for each certificate", "ok"),
    Fault("desk-intermediate", "desk", "signs with an intermediate of the issuing CA", "ok"),
    Fault("desk-server-auth", "desk", "issues for serverAuth only", "certificate_rejected"),
    Fault("desk-revoke-old", "desk", "revokes the login's older ones so long after", "ok", "DURATION", "0"),
    Fault("desk-wrong-key", "desk", "issues for a key that is not the request's", "refused on receipt"),
    Fault("desk-wrong-subject", "desk", "issues for another CN", "refused on receipt"),
    Fault("desk-reject", "desk", "rejects every request by hand", "refused by the desk"),
)
_BY_NAME: Final[Mapping[str, Fault]] = MappingProxyType({fault.name: fault for fault in FAULTS})


@dataclass(frozen=True, slots=True)
class Active:
    """A fault that is switched on; `times` counts the hits it still has, None for ever."""

    name: str
    value: str
    times: int | None = None


class Faults:
    """What is switched on just now. Any thread may read, set and clear."""

    def __init__(self, settings: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._active: Mapping[str, Active] = MappingProxyType({})
        for setting in settings:
            self.apply(setting)

    def apply(self, setting: str) -> Active:
        """Switch on by text: `NAME`, `NAME=VALUE`, either with `@TIMES` behind it."""
        text, at, times = setting.partition("@")
        if at and not (_is_count(times) and int(times)):
            raise UnknownFaultError(f"{setting!r}: after @ comes how many times, from 1")
        name, equals, value = text.partition("=")
        return self.set(name, value if equals else None, times=int(times) if at else None)

    def set(self, name: str, value: str | None = None, *, times: int | None = None) -> Active:
        """Switch `name` on, for the next `times` hits or until cleared; raise `UnknownFaultError`."""
        active = Active(name, _known(name).checked(value), times)
        with self._lock:
            self._active = MappingProxyType({**self._active, name: active})
        return active

    def clear(self, name: str | None = None) -> None:
        """Switch `name` off, or everything; raise `UnknownFaultError` for a name that is not in the table."""
        if name is not None:
            _known(name)
        with self._lock:
            kept = {} if name is None else {key: fault for key, fault in self._active.items() if key != name}
            self._active = MappingProxyType(kept)

    def active(self) -> tuple[Active, ...]:
        """Return all that are on, in the order of the table."""
        now = self._active
        return tuple(now[fault.name] for fault in FAULTS if fault.name in now)

    def value(self, name: str) -> str | None:
        """Return the value `name` is on with, "" where it has none, None where it is off. Uses nothing up."""
        active = self._active.get(name)
        return None if active is None else active.value

    def take(self, name: str) -> str | None:
        """Return as `value` does, and use up one of its times."""
        if name not in self._active:
            return None
        with self._lock:
            active = self._active.get(name)
            if active is None:
                return None
            rest = {key: fault for key, fault in self._active.items() if key != name}
            if active.times is None:
                rest[name] = active
            elif active.times > 1:
                rest[name] = replace(active, times=active.times - 1)
            self._active = MappingProxyType(rest)
            return active.value


def _known(name: str) -> Fault:
    if name not in _BY_NAME:
        raise UnknownFaultError(f"no fault is named {name[:60]!r}: partner-standin fault list shows them all")
    return _BY_NAME[name]
