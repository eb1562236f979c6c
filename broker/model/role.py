"""Who works on the broker's mount."""

from enum import Enum


class Role(Enum):
    """Each has a policy of its name, a login of its own, and in the configuration a table `[roles.NAME]`."""

    SERVER = "server"
    ROTATOR = "rotator"
    CANARY = "canary"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ANCHOR = "anchor"
