"""Every path the broker uses in Vault. `policies/` grants by these, so a change here is a change there.

Relative to the KV v2 mount, but for `right`, which names what is never mounted. The first segment says how sensitive
a path is: a policy that names `accounts/` and `evidence/` reads no secret.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from broker.errors import InputError
from broker.model.authentication import PASSWORD
from broker.model.chain import LAST
from broker.model.names import checked_name

ACCOUNTS: Final = "accounts"
CHANGES: Final = "changes"  # one document, no folder
CONSUMERS: Final = "consumers"
EVIDENCE: Final = "evidence/accounts"
HEADS: Final = "evidence/heads"
ANCHOR_KEY: Final = f"{HEADS}/key"  # what signed statements are verified with; public
ISSUED: Final = "evidence/issued"
IDLE: Final = "idle"  # one document, a hint for the scheduler
LOCK: Final = "locks/rotation"  # one document; its metadata is never deleted
MAIL: Final = "mail"
MAILBOX: Final = "mailbox"  # one document: the last mail that was read
PROFILES: Final = "profiles"
ROTATION: Final = "rotation"  # what the scheduler and mail did
RECIPIENTS: Final = "recipients"  # of notices: one document, no folder
RIGHTS: Final = "cb-issue"  # the prefix of virtual paths: nothing may ever be mounted there
DIRECT: Final = "direct"  # kind of bundle
SIGNERS: Final = "signers"
# At the top of the mount
FOLDERS: Final = (
    ACCOUNTS,
    CHANGES,
    CONSUMERS,
    "evidence",
    IDLE,
    "keys",
    "locks",
    MAIL,
    MAILBOX,
    "passwords",
    PROFILES,
    RECIPIENTS,
    ROTATION,
    "secrets",
    SIGNERS,
)

DESCRIPTION: Final = "credential broker"  # of a mount that `setup` made: how it is recognised later
# Bounds of the documents that are written more than once: versions kept, and no write without check-and-set. A mount
# that `setup` made has them for all. On one that others use too, each document gets its own when it is created.
# Documents that are written once (keys, passwords, evidence, signers) need none: their roles may only create them.
BOUNDED: Final = (ACCOUNTS, CONSUMERS, "locks", PROFILES, ROTATION)
BOUNDS: Final[Mapping[str, bool | int]] = MappingProxyType({"cas_required": True, "max_versions": 10})
# Vault compares a number with a policy's allowed_parameters as text, and accepts text for it
BOUNDS_AS_GRANTED: Final = MappingProxyType({"cas_required": True, "max_versions": "10"})

_ENTITY: Final = re.compile(r"[a-z0-9][A-Za-z0-9-]{0,62}(\.[A-Za-z0-9]{1,16})?", re.ASCII)  # OpenBao adds ".namespace"
_DIGITS: Final = len(str(LAST))  # so that Vault lists numbers in their order
_PLACE: Final = re.compile(rf"[0-9]{{{_DIGITS}}}")


def account(name: str) -> str:
    """Return the path of an account's document."""
    return f"{ACCOUNTS}/{checked_name(name, 'account')}"


def rotation(account: str) -> str:
    """Return the path of an account's rotation record."""
    return f"{ROTATION}/{checked_name(account, 'account')}"


def key(account: str, slot: int) -> str:
    """Return the path of the private key in `slot`, written once."""
    return f"keys/{checked_name(account, 'account')}/{_number(slot)}"


def secret(account: str, name: str, number: int) -> str:
    """Return the path of secret `number` of those called `name`, written once. Passwords have a separate folder."""
    folder = checked_name(account, "account")
    if name == PASSWORD:
        return f"passwords/{folder}/{_number(number)}"
    return f"secrets/{folder}/{checked_name(name, 'secret')}/{_number(number)}"


def mail_secrets(name: str) -> str:
    """Return the folder of the secrets of a mail server, or of the server of its tokens."""
    return f"{MAIL}/{checked_name(name, 'mail server')}"


def mail_secret(name: str, number: int) -> str:
    """Return the path of secret `number` for a mail server, written once."""
    return f"{mail_secrets(name)}/{_number(number)}"


def consumer(entity: str) -> str:
    """Return the path of a consumer's document. `entity` is Vault's id, or a name given by hand."""
    if not _ENTITY.fullmatch(entity):
        raise InputError(f"consumer {entity[:80]!r} is not an entity's id or a name")
    return f"{CONSUMERS}/{entity}"


def signer(name: str) -> str:
    """Return the path of a signing key of the broker (leases, tickets, evidence heads), by purpose."""
    return f"{SIGNERS}/{checked_name(name, 'signer')}"


def profile(partner: str) -> str:
    """Return the path of a partner's profile that a user added."""
    return f"{PROFILES}/{checked_name(partner, 'partner')}"


def chain(name: str) -> str:
    """Return the folder of a chain of evidence: `accounts/<account>` or `issued/<process>`."""
    kind, _, rest = name.partition("/")
    if kind not in ("accounts", "issued"):
        raise InputError(f"there is no evidence of {kind[:80]!r}")
    return f"evidence/{kind}/{checked_name(rest, 'chain')}"


def evidence(chain_name: str, number: int) -> str:
    """Return the path of entry or page `number` of a chain, written once."""
    return f"{chain(chain_name)}/{_number(number, digits=_DIGITS)}"


def head(number: int) -> str:
    """Return the path of the signed statement `number` of where all chains stood, written once."""
    return f"{HEADS}/{_number(number, digits=_DIGITS)}"


def place(name: str) -> int:
    """Return the number of the entry or statement that is called `name` in its folder; raise `InputError`."""
    if not _PLACE.fullmatch(name) or not int(name):
        raise InputError(f"{name[:80]!r} is not a number in the form that the broker writes")
    return int(name)


def right(partner: str, environment: str, account: str, application: str, kind: str = DIRECT) -> str:
    """Return the virtual path on which a consumer needs exactly `update`. An API path, not one of the mount. Its
    last segment is the kind of the bundle; only direct bundles are built.
    """
    names = {"partner": partner, "environment": environment, "account": account, "application": application}
    return "/".join([RIGHTS, *(checked_name(text, what) for what, text in names.items()), kind])


def _number(number: int, *, digits: int = 1) -> str:
    if not 0 <= number <= LAST:
        raise InputError(f"{number} is not a number that Vault's paths have room for")
    return f"{number:0{digits}d}"
