"""What applications import: a `requests` session on a published bundle that follows its rotation.

import broker.client

with broker.client.open("/run/credential-broker/mzp-1/reports") as session:
    for page in session.pages("/fleets"):
        ...
"""

from __future__ import annotations

from broker.client.published import Published, read
from broker.client.session import Session, open  # noqa: A004  # read as broker.client.open
from broker.upstream.credentials import Credentials

__all__ = ["Credentials", "Published", "Session", "open", "read"]
