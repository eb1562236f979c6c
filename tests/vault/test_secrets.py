"""Keys in Vault's KV are read back, even from a server that answers as no Vault would."""

from __future__ import annotations

import base64
import json

import pytest

from broker.errors import BrokerError, RefusedError
from broker.model.names import AccountName
from broker.model.secret import Secret
from broker.model.subject import KeyRules
from broker.pki import keys
from broker.vault.connection import Connection
from broker.vault.errors import MissingError
from broker.vault.logins import FixedToken
from broker.vault.secrets import VaultKeys
from broker.vault.settings import VaultSettings
from tests.support import pki
from tests.support.scripted_server import Answer, errors, misbehaving

PKCS8 = base64.b64encode(pki.secret_of(pki.a_key()).reveal()).decode()
OTHERS = keys.spki_of(pki.secret_of(pki.a_key("other")))


def stored(**content: str) -> Answer:
    return Answer(body=json.dumps({"data": {"data": content, "metadata": {"version": 1}}}).encode())


@pytest.mark.parametrize(
    ("then", "error"),
    [
        (errors(404), MissingError),
        (stored(), RefusedError),
        (stored(pkcs8=PKCS8), RefusedError),
        (stored(pkcs8=PKCS8, spki=OTHERS), RefusedError),
        (stored(pkcs8=f"{PKCS8[:-8]}!", spki=OTHERS), RefusedError),
    ],
    ids=["nothing", "nothing in it", "no SPKI", "another key's SPKI", "no base64"],
)
def test_key_is_read_back(then: Answer, error: type[BrokerError]) -> None:
    written = Answer(body=b'{"data": {"version": 1}}')
    with misbehaving(errors(404), written, then) as server:
        connection = Connection(VaultSettings(server.address, patience=0.5), FixedToken(Secret("s.x")))
        with pytest.raises(error) as caught:
            VaultKeys(connection).ensure(AccountName("mzp-1"), 1, KeyRules())
        connection.close()
    methods = [line.split()[0] for line in server.asked]
    assert methods[:3] == ["GET", "POST", "GET"]
    assert set(methods[3:]) <= {"GET"}  # a standby that is late is asked again
    assert PKCS8[:40] not in f"{caught.value!r} {caught.value.hint}"
