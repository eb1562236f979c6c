"""The API for applications: a `requests` session on a published bundle, which follows its rotation.

import broker.client

with broker.client.open("/run/credential-broker/mzp-1/reports") as session:
    for page in session.pages("/fleets"):
        ...

`broker.client.connect("acme/reporting")` fetches the bundle from the service and holds it in memory.
`broker.client.httpx` and `broker.client.aiohttp` have the same for these libraries.

Errors are a `BrokerError`, with `message` and `hint` for people, neither of them secret:

    BrokerError
    ├── InputError                    a file of the bundle, or an argument, cannot be used
    │   └── NothingPublishedError     the directory holds no bundle; its lease may have ended
    ├── DeniedError                   the service gives no bundle: the identity is unknown or lacks a right
    ├── RefusedError                  the request would send the set elsewhere, or change it; the account is suspended
    ├── VaultUnavailableError         the service cannot be reached; `retryable`
    └── PartnerUnavailableError       the answer is not the API's; `retryable`

A session also raises the errors of `requests`, with texts of ours: they quote nothing that the partner wrote, which may
repeat a secret.
"""

from broker.client.published import NothingPublishedError, Published, read
from broker.client.session import Session, connect, open  # noqa: A004  # read as broker.client.open
from broker.errors import (
    BrokerError,
    DeniedError,
    InputError,
    PartnerUnavailableError,
    RefusedError,
    VaultUnavailableError,
)
from broker.model.bundle import Manifest
from broker.upstream.credentials import Credentials

__all__ = [
    "BrokerError",
    "Credentials",
    "DeniedError",
    "InputError",
    "Manifest",
    "NothingPublishedError",
    "PartnerUnavailableError",
    "Published",
    "RefusedError",
    "Session",
    "VaultUnavailableError",
    "connect",
    "open",
    "read",
]
