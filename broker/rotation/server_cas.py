"""CAs that verify the partner's server, which changes its certificate some day."""

from broker.model.account import Account
from broker.model.changes.registering import trust_set
from broker.model.clock import Stamp
from broker.pki.certificates import ca_set


def server_cas_named(account: Account, named: str, stamp: Stamp) -> Account:
    """Have the CAs in `named`, as PEM, verify the server, and those of the current generation too.

    So bundles work before and after the change.
    """
    current = account.current
    kept = account.ca_set(current.parts.trust).pem if current else ""
    return trust_set(account, ca_set(named + kept), stamp)
