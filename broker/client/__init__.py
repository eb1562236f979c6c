"""The API for applications: a `requests` session on a published bundle, which follows its rotation.

import broker.client

with broker.client.open("/run/credential-broker/mzp-1/reports") as session:
    for page in session.pages("/fleets"):
        ...

Errors are a `BrokerError`, with `message` and `hint` for people, neither of them secret:

    BrokerError
    ├── InputError                    a file of the bundle, or an argument, cannot be used
    │   └── NothingPublishedError     the directory holds no bundle; its lease may have ended
    ├── RefusedError                  the request would send the set elsewhere, or change it
    └── PartnerUnavailableError       the answer is not the API's; `retryable`

A session also raises the errors of `requests`, with texts of ours: they quote nothing that the partner wrote, which may
repeat a secret.
"""

from broker.client.published import NothingPublishedError, Published, read
from broker.client.session import Session, open  # noqa: A004  # read as broker.client.open
from broker.errors import BrokerError, InputError, PartnerUnavailableError, RefusedError
from broker.model.bundle import Manifest
from broker.upstream.credentials import Credentials

__all__ = [
    "BrokerError",
    "Credentials",
    "InputError",
    "Manifest",
    "NothingPublishedError",
    "PartnerUnavailableError",
    "Published",
    "RefusedError",
    "Session",
    "open",
    "read",
]
