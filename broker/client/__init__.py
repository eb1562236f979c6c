"""What applications import: a `requests` session on a published bundle that follows its rotation.

import broker.client

with broker.client.open("/run/credential-broker/mzp-1/reports") as session:
    for page in session.pages("/fleets"):
        ...

What can go wrong is a `BrokerError`, with `what` and `hint` for people, neither of them secret:

    BrokerError
    ├── InputError                    a file of the bundle, or something asked of the session, cannot be used
    │   └── NothingPublishedError     no bundle lies there, or none any more: its lease may have ended
    ├── RefusedError                  a request that would take the set elsewhere, or change it
    └── PartnerUnavailableError       an answer that is not the API's; `retryable`

Beside these, a session raises what every `requests.Session` raises, in our words alone: nothing that the partner
wrote, which may repeat a secret, is in them.
"""

from __future__ import annotations

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
