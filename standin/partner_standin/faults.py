"""The faults: a table of their effects and expected canary verdicts, and the faults that are on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from partner_standin.durations import parse_duration

MOST_DIGITS: Final = 9


class UnknownFaultError(ValueError):
    """The name or the value of a fault is unknown."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table. `value` is the syntax after `=`, `default` applies if nothing is given."""

    name: str
    place: str
    what: str
    verdict: str
    value: str = ""
    default: str = ""
    needed: bool = False

    def checked(self, value: str | None) -> str:
        """Return the value to use; raise `UnknownFaultError` for one that this fault does not take."""
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


_DESERVED = "for every certificate, or (deserved) for a missing, expired, not yet valid or revoked one"

FAULTS: Final[tuple[Fault, ...]] = (
    # the handshake, and before
    Fault("tls-version", "tls", "speaks this version of TLS only", "ok", "1.2|1.3|both", needed=True),
    Fault("closed-at-once", "tls", "closes the connection before the handshake: a bare EOF", "partner_down"),
    Fault("reset-at-once", "tls", "resets the connection before the handshake", "partner_down"),
    Fault("handshake-failure", "tls", "accepts no cipher (TLS 1.2): alert handshake_failure", "handshake"),
    Fault("handshake-garbage", "tls", "answers the handshake in plain text", "handshake"),
    Fault("handshake-stall", "tls", "is silent for DURATION before the handshake", "handshake", "DURATION", "5s"),
    Fault("wrong-ca", "tls", "presents a certificate of an unpublished CA", "wrong_ca"),
    Fault("wrong-host", "tls", "presents a certificate for another host", "wrong_ca"),
    Fault("expired-server", "tls", "presents a certificate that expired yesterday", "wrong_ca"),
    Fault(
        "certificate-alert", "tls", "rejects every client certificate with the alert unknown_ca", "certificate_rejected"
    ),
    Fault(
        "certificate-nginx",
        "tls",
        f"accepts the handshake and answers HTTP 400 as nginx does (495, 496): {_DESERVED}",
        "certificate_rejected",
        "always|deserved",
        "always",
    ),
    Fault(
        "certificate-json",
        "tls",
        f'accepts the handshake and answers {{"code":"495"…}}: {_DESERVED}',
        "certificate_rejected",
        "always|deserved",
        "always",
    ),
    Fault(
        "certificate-eof",
        "tls",
        f"accepts the handshake and closes without an alert: {_DESERVED}",
        "certificate_rejected",
        "always|deserved",
        "always",
    ),
    # the gate: login and client_id
    Fault("login-rejected", "gate", "rejects every login and password", "login_rejected"),
    Fault(
        "login-lockout",
        "gate",
        "locks an account after COUNT bad passwords in a row, until the desk unlocks it; a locked account is "
        "answered like a bad password",
        "login_rejected",
        "COUNT",
        "3",
    ),
    Fault("client-rejected", "gate", "rejects every client_id", "client_rejected"),
    Fault("not-subscribed", "gate", "answers that the application is not registered to a plan", "not_subscribed"),
    Fault("address-refused", "gate", "answers 403: the client's address is not allowed", "address_refused"),
    Fault(
        "cn-mismatch",
        "gate",
        "sets the answer to a login with another login's certificate; 403 without this fault",
        "login_rejected",
        "off|401|403",
        "401",
    ),
    # quota
    Fault("quota-day", "quota", "allows COUNT requests in 24 hours, then answers 429", "quota", "COUNT", "0"),
    Fault("quota-burst", "quota", "allows COUNT requests in a second, then answers 429", "quota", "COUNT", "0"),
    # outages
    Fault("status-500", "answer", "answers 500 with an error body", "partner_down"),
    Fault("status-503", "answer", "answers 503 with Retry-After", "partner_down", "DURATION", "30s"),
    Fault("html-403", "answer", "answers 403 with a firewall's HTML page", "partner_down"),
    Fault("empty-body", "answer", "answers 200 with an empty body", "partner_down"),
    Fault("not-json", "answer", "answers 200 with half a JSON document", "partner_down"),
    Fault("reset-mid-body", "answer", "resets the connection in the middle of the body", "partner_down"),
    Fault("cut-mid-body", "answer", "closes the connection in the middle of the body", "partner_down"),
    Fault("garbage", "answer", "answers bytes that are not HTTP", "partner_down"),
    Fault(
        "slow-answer",
        "answer",
        "waits for DURATION before it answers; ok if the client waits",
        "partner_down",
        "DURATION",
        "5s",
    ),
    Fault(
        "slow-body",
        "answer",
        "spreads the body over DURATION; ok if the client waits",
        "partner_down",
        "DURATION",
        "5s",
    ),
    # harmless oddities
    Fault("no-timestamp", "answer", "leaves the timestamp out of error bodies", "ok"),
    Fault("spaced-media-type", "answer", "ends the media type with a space, as the published OpenAPI does", "ok"),
    Fault("echo-client-id", "answer", "repeats the client_id in every link", "ok"),
    # the desk
    Fault("desk-delay", "desk", "signs DURATION after the request came in", "ok", "DURATION", needed=True),
    Fault("desk-lifetime", "desk", "issues certificates that are valid for DURATION", "ok", "DURATION", needed=True),
    Fault("desk-not-before", "desk", "moves the start of their validity by DURATION", "ok", "DURATION", needed=True),
    Fault("desk-new-ca", "desk", "makes a new issuing CA for each certificate", "ok"),
    Fault("desk-intermediate", "desk", "signs with an intermediate of the issuing CA", "ok"),
    Fault("desk-server-auth", "desk", "issues certificates for serverAuth only", "certificate_rejected"),
    Fault("desk-revoke-old", "desk", "revokes the login's older certificates after DURATION", "ok", "DURATION", "0"),
    Fault("desk-wrong-key", "desk", "issues the certificate for another key", "refused on receipt"),
    Fault("desk-wrong-subject", "desk", "issues the certificate for another CN", "refused on receipt"),
    Fault("desk-reject", "desk", "rejects every request", "refused by the desk"),
)
_BY_NAME: Final[Mapping[str, Fault]] = MappingProxyType({fault.name: fault for fault in FAULTS})


@dataclass(frozen=True, slots=True)
class Active:
    """A fault that is on; `times` is the number of hits left, None for no limit."""

    name: str
    value: str
    times: int | None = None


class Faults:
    """The faults that are on. Thread-safe."""

    def __init__(self, settings: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._active: Mapping[str, Active] = MappingProxyType({})
        for setting in settings:
            self.apply(setting)

    def apply(self, setting: str) -> Active:
        """Switch on by text: `NAME` or `NAME=VALUE`, optionally with `@TIMES`."""
        text, at, times = setting.partition("@")
        if at and not (_is_count(times) and int(times)):
            raise UnknownFaultError(f"{setting!r}: @ takes a number of hits, from 1")
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
        """Return the value of `name`, "" if it has none, None if it is off. Does not count as a hit."""
        active = self._active.get(name)
        return None if active is None else active.value

    def take(self, name: str) -> str | None:
        """Return the same as `value`, and count one hit."""
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
        raise UnknownFaultError(f"there is no fault {name[:60]!r}: partner-standin fault list shows all")
    return _BY_NAME[name]
