"""A traceback with local variables, as error trackers and debuggers make it, shows none of our secrets."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from broker.compose.graph import Wiring
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.pki.reply import read_reply
from broker.rotation.receive import ImportOptions
from broker.vault.connection import Phase
from tests.support.secret_marks import Marks
from tests.support.sources import BROKER
from tests.support.system import PASSWORD, System

pytestmark = pytest.mark.slow
ACME = AccountName("acme")
NEW = "n3w-Pa§s'word%2F+2"


class BrokenError(Exception):
    """Raised by an observer in the middle of a write."""


def locals_of(error: BaseException | None) -> Iterator[str]:
    """Yield the local variables of our own frames, as a traceback shows them, of what `error` came from too."""
    while error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename.startswith(str(BROKER)):
                for name, value in frame.f_locals.items():
                    yield f"{frame.f_code.co_qualname}: {name} = {value!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def shown_at_every_write(system: System, act: Callable[[Wiring], object]) -> list[str]:
    """Let `act` fail before and after each write in turn; return the tracebacks with all locals."""
    shown: list[str] = []
    for at in range(12):
        calls = iter(range(at + 1))

        def observer(phase: Phase, path: str) -> None:
            if next(calls, None) is None:  # noqa: B023
                raise BrokenError

        try:
            act(Wiring(observer=observer))
        except BrokenError as error:
            shown.append("\n".join(locals_of(error)))
        else:
            break
    return shown


def test_failed_write_has_no_secret_locals(system: System) -> None:
    shown: list[str] = []
    system.added()

    def set_password(wiring: Wiring) -> None:
        with system.broker(wiring) as broker:
            broker.registry.set_secret(ACME, Secret(NEW))

    def draft(wiring: Wiring) -> None:
        with system.broker(wiring) as broker:
            broker.rotation.draft(ACME)

    shown += shown_at_every_write(system, set_password)
    shown += shown_at_every_write(system, draft)
    reply = system.reply().read_bytes()
    accepted = tuple(system.accepting()[1::2])

    def receive(wiring: Wiring) -> None:
        with system.broker(wiring) as broker:
            broker.rotation.receive(ACME, read_reply(reply), ImportOptions(accepted, b"", "reporting", ""))

    shown += shown_at_every_write(system, receive)
    assert len(shown) >= 6
    marks = [Marks("password", PASSWORD.encode()), Marks("new password", NEW.encode())]
    for slot in system.vault.admin.list("keys/acme"):
        key = load_der_private_key(
            base64.b64decode(system.vault.admin.read(f"keys/acme/{slot}").data["value"]["pkcs8"]), None
        )
        assert isinstance(key, RSAPrivateKey)
        marks.append(Marks(f"key {slot}", key.private_numbers().p.to_bytes(128)[:48]))
    roles = sorted((system.home / "roles").iterdir())
    marks += [Marks(f"secret-id of {role.name}", (role / "secret_id").read_bytes()) for role in roles]
    leaks = {
        (mark.name, line.partition(" = ")[0])
        for text in shown
        for line in text.splitlines()
        for mark in marks
        if mark.found_in(line.encode())
    }
    assert sorted(leaks) == []
