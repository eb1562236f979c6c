"""Changes of an account: pure functions that return the changed account, with the evidence of the change in it.

Each returns its argument when nothing is left to do, so that it is safe to repeat. None reads a clock: the time and the
actor come as a `Stamp`.
"""

from broker.model.changes.importing import adopted, copies_noted, copy_gone
from broker.model.changes.moving import joined, joined_form, moved, require_move, restored, settled
from broker.model.changes.registering import (
    account_set,
    added,
    application_removed,
    application_set,
    ca_accepted,
    secret_set,
    trust_set,
)
from broker.model.changes.requesting import answered, closed, requested, submitted
from broker.model.changes.trying import CanaryOutcome, breaker_reset, canary_answered, canary_sent

__all__ = [
    "CanaryOutcome",
    "account_set",
    "added",
    "adopted",
    "answered",
    "application_removed",
    "application_set",
    "breaker_reset",
    "ca_accepted",
    "canary_answered",
    "canary_sent",
    "closed",
    "copies_noted",
    "copy_gone",
    "joined",
    "joined_form",
    "moved",
    "requested",
    "require_move",
    "restored",
    "secret_set",
    "settled",
    "submitted",
    "trust_set",
]
