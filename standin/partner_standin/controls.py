"""HTTP controls of the stand-in: accounts, certificates, faults, log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from partner_standin.desk_request import Asked, Row, json_answer
from partner_standin.durations import parse_duration
from partner_standin.faults import FAULTS
from partner_standin.registry import Account
from partner_standin.responses import Response


@dataclass(frozen=True, slots=True)
class _NewPassword:
    """Body of PUT /desk/accounts/LOGIN/password."""

    password: str
    overlap: bool = False


@dataclass(frozen=True, slots=True)
class _NewAccount:
    """Body of POST /desk/accounts."""

    login: str
    password: str


@dataclass(frozen=True, slots=True)
class _NewApplication:
    """Body of POST /desk/accounts/LOGIN/applications."""

    name: str


@dataclass(frozen=True, slots=True)
class _Switch:
    """Body of PUT /desk/faults/NAME; empty is `{}`."""

    value: str | None = None
    times: int | None = None


@dataclass(frozen=True, slots=True)
class _Revocation:
    """Body of POST /desk/revocations. `after` is a duration from now."""

    serial: str
    after: str = "0"


def _account(account: Account) -> Mapping[str, Any]:
    return {
        "login": account.login,
        "locked": account.locked,
        "passwords_valid": len(account.passwords),
        "applications": [{"name": app.name, "client_id": app.client_id} for app in account.applications],
    }


def _accounts(asked: Asked, _: tuple[str, ...]) -> Response:
    return json_answer([_account(account) for account in asked.parts.registry.accounts])


def _add_account(asked: Asked, _: tuple[str, ...]) -> Response:
    sent = asked.read(_NewAccount)
    return json_answer(_account(asked.parts.registry.add_account(sent.login, sent.password)), 201)


def _set_password(asked: Asked, names: tuple[str, ...]) -> Response:
    sent = asked.read(_NewPassword)
    return json_answer(_account(asked.parts.registry.set_password(names[0], sent.password, overlap=sent.overlap)))


def _add_application(asked: Asked, names: tuple[str, ...]) -> Response:
    application, secret = asked.parts.registry.add_application(names[0], asked.read(_NewApplication).name)
    return json_answer({"name": application.name, "client_id": application.client_id, "client_secret": secret}, 201)


def _unlock(asked: Asked, names: tuple[str, ...]) -> Response:
    return json_answer(_account(asked.parts.registry.unlock(names[0])))


def _faults(asked: Asked, _: tuple[str, ...]) -> Response:
    return json_answer({"active": asked.parts.faults.active(), "table": FAULTS})


def _set_fault(asked: Asked, names: tuple[str, ...]) -> Response:
    switch = asked.read(_Switch) if asked.body.strip() else _Switch()
    if switch.times is not None and switch.times < 1:
        raise ValueError("times starts at 1")
    return json_answer(asked.parts.faults.set(names[0], switch.value, times=switch.times))


def _clear_fault(asked: Asked, names: tuple[str, ...]) -> Response:
    asked.parts.faults.clear(names[0] if names else None)
    return Response(204)


def _log(asked: Asked, _: tuple[str, ...]) -> Response:
    since = asked.query.get("since", "0")
    if not since.isdigit():
        raise ValueError("since is the number of an entry")
    return json_answer(asked.parts.journal.entries(since=int(since), login=asked.query.get("login", "")))


def _clear_log(asked: Asked, _: tuple[str, ...]) -> Response:
    asked.parts.journal.clear()
    return Response(204)


def _certificates(asked: Asked, _: tuple[str, ...]) -> Response:
    return json_answer(asked.parts.registry.issued)


def _revoke(asked: Asked, _: tuple[str, ...]) -> Response:
    sent = asked.read(_Revocation)
    return json_answer(
        asked.parts.registry.revoke(sent.serial.lower(), asked.parts.clock() + parse_duration(sent.after))
    )


def _ca(asked: Asked, names: tuple[str, ...]) -> Response:
    authorities = asked.parts.authorities
    found = {"server-ca.pem": authorities.server, "issuing-ca.pem": authorities.issuing[-1]}.get(names[0])
    return Response(200, found.pem.encode(), "text/plain") if found else json_answer({"error": "no such CA"}, 404)


CONTROLS: Final[tuple[Row, ...]] = (
    ("GET", "desk/ca/*", _ca),
    ("GET", "desk/accounts", _accounts),
    ("POST", "desk/accounts", _add_account),
    ("PUT", "desk/accounts/*/password", _set_password),
    ("POST", "desk/accounts/*/applications", _add_application),
    ("DELETE", "desk/accounts/*/lock", _unlock),
    ("GET", "desk/certificates", _certificates),
    ("POST", "desk/revocations", _revoke),
    ("GET", "desk/faults", _faults),
    ("DELETE", "desk/faults", _clear_fault),
    ("PUT", "desk/faults/*", _set_fault),
    ("DELETE", "desk/faults/*", _clear_fault),
    ("GET", "desk/log", _log),
    ("DELETE", "desk/log", _clear_log),
)
