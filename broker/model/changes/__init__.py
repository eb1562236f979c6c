"""How an account becomes another: pure functions, one a change, each noting its evidence in the same value.

Every one returns its argument when nothing is left to do, so that running it again on what is stored is safe. None
looks at a clock: a `Stamp` says when and who.
"""

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
    "answered",
    "application_removed",
    "application_set",
    "breaker_reset",
    "ca_accepted",
    "canary_answered",
    "canary_sent",
    "closed",
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
