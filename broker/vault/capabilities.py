"""Decide whether the bearer of a token is a consumer with a right: Vault's policies say so, without ambiguity.

`sys/capabilities` says what a token may do, not whose it is; `auth/token/lookup` says whose it is; neither looks at the
peer's address. Each alone lets through what the other stops, so both are asked, about the right and about two paths
that nobody has a right to. Other paths are not looked at: a token with `sudo` or any right elsewhere passes, since that
gives it nothing of the broker. Sources: Vault API, "/sys/capabilities" and "/auth/token"; the gaps in them were
measured.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final

from msgspec import Struct

from broker.errors import DeniedError, InputError
from broker.model.bounded import Bounded
from broker.model.lease import Consumer
from broker.model.names import NAME
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.errors import BadTokenError, InvalidError, LackingError, UnclearError, field_of, unclear

Address = IPv4Address | IPv6Address

_TOGETHER: Final = 400  # paths in one request: OpenBao takes a body with 1,000 strings
_KEPT: Final = 300.0  # seconds
_MOST: Final = 20_000  # tokens
_TOKEN: Final = re.compile(r"[!-~]{1,8192}")
_AGAIN: Final = "has it expired? log in at Vault again"
_AS_CONSUMER: Final = "log in at Vault as the consumer itself"
_METHOD: Final = "log in by a method of Vault (AppRole, JWT, Kubernetes), not by a token that was created"
_SERVICE: Final = "log in by a role whose token_type is service"
_EXACTLY: Final = 'a policy of the token grants it; a consumer needs only {right}, ["update"]'
_TEMPLATE: Final = "is one templated on the identity, and does the entity's metadata hold a wildcard?"


class Clause(Enum):
    """Reason to refuse a token: a code for programs, then message and hint for people."""

    MALFORMED = "malformed", "the presented text is not a token of Vault", "log in at Vault first"
    UNKNOWN = "unknown-token", "Vault does not know the presented token", _AGAIN
    ROOT = "root", "root tokens identify nobody; refusing to issue a bundle", _AS_CONSUMER
    SUDO = "sudo", "the consumer's token has sudo on {where}; refusing to issue a bundle", _EXACTLY
    TOO_WIDE = "matches-everything", "a policy of the token matches every right, even a random one", _EXACTLY
    TOO_MUCH = "more-than-update", "the consumer's token may {granted} on {right}; a right is exactly update", _EXACTLY
    NO_RIGHT = "no-right", "the consumer's token lacks update on {right}", "{grant}"
    LIMITED_USES = "num-uses", "a token with a limited number of uses cannot be a consumer's", _AS_CONSUMER
    BATCH = "batch-token", "batch tokens cannot be revoked; refusing to issue a bundle", _SERVICE
    UNREADABLE = "unreadable-policies", "Vault cannot evaluate the token's policies", _TEMPLATE
    NO_ENTITY = "no-entity", "the token has no entity in this namespace of Vault, so it identifies nobody", _METHOD
    DISABLED = "disabled-entity", "the entity {name} is disabled in Vault", "ask the administrator of Vault"
    FOREIGN = "foreign-namespace", "the token belongs to another namespace of Vault", "log in at the broker's namespace"
    WRONG_ADDRESS = "bound-cidr", "the token is bound to addresses, and {peer} is not one of them", "use it there"


class NotAConsumerError(DeniedError):
    """The token does not make its bearer a consumer of this right."""

    def __init__(self, clause: Clause, **details: object) -> None:
        _, message, hint = clause.value
        super().__init__(message.format(**details), hint=hint.format(**details))
        self.clause = clause


def authorize(vault: Connection, presented: Secret[str], right: str, *, peer: Address | None) -> Consumer:
    """Return the consumer that `presented` belongs to, if it may do `right` (a path made by `layout.right`).

    `peer` is the real address of the connection, None for a unix socket. Raise `NotAConsumerError` for the bearer of
    the token, and plain `DeniedError` if the broker itself may not ask.
    """
    return _checked(vault, presented, _bearer(vault, presented), right, peer)


def permitted(
    vault: Connection, presented: Secret[str], rights: Collection[str], *, peer: Address | None
) -> tuple[Consumer, frozenset[str]]:
    """Return the consumer that `presented` belongs to, and those of `rights` that it has; else as `authorize`."""
    bearer, granted = _bearer(vault, presented), []
    _check_address(bearer.cidrs, peer)
    paths = sorted(rights)
    for first in range(0, len(paths), _TOGETHER):
        some, sentinels = paths[first : first + _TOGETHER], _sentinels()
        found = _capabilities(vault, presented, [*some, *sentinels])
        if any(found[path] != ["deny"] for path in sentinels):
            raise NotAConsumerError(Clause.TOO_WIDE, right="its rights")
        granted += [path for path in some if found[path] == ["update"]]
    return _consumer(bearer.entity), frozenset(granted)


class Authorizer:
    """`authorize` for a service, which keeps the look-up of a token and its entity for a minute.

    What they say of a token changes with its end alone, or if its entity is disabled: `sys/capabilities` then refuses
    it, and that is asked each time. Shared by threads.
    """

    def __init__(self, vault: Connection, uptime: Callable[[], float] = time.monotonic) -> None:
        self._vault = vault
        self._uptime = uptime
        self._kept: Bounded[bytes, _Bearer] = Bounded(_MOST)
        self._lock = threading.Lock()

    def authorize(self, presented: Secret[str], right: str, *, peer: Address | None) -> Consumer:
        """Return the consumer, as the function does."""
        digest = presented.digest()
        kept = self._kept.get(digest)
        if kept and self._uptime() - kept.at < _KEPT:
            with suppress(DeniedError):  # the reason is found below
                return _checked(self._vault, presented, kept, right, peer)
        with self._lock:
            self._kept.pop(digest, None)
        bearer = _bearer(self._vault, presented, self._uptime())
        consumer = _checked(self._vault, presented, bearer, right, peer)
        with self._lock:
            self._kept[digest] = bearer
        return consumer


class _Bearer(Struct, frozen=True):
    """What was looked up: the addresses that the token is bound to, and its entity."""

    cidrs: Sequence[str]
    entity: Mapping[str, Any]
    at: float


def _bearer(vault: Connection, presented: Secret[str], at: float = 0.0) -> _Bearer:
    # Vault takes an empty token to mean the asker's own, which is the broker's
    if not _TOKEN.fullmatch(presented.reveal()):
        raise NotAConsumerError(Clause.MALFORMED)
    found = _looked_up(vault, presented)
    _check_token(found, vault.settings.namespace)
    return _Bearer(found.get("bound_cidrs") or (), _entity(vault, found), at)


def _checked(
    vault: Connection, presented: Secret[str], bearer: _Bearer, right: str, peer: Address | None
) -> Consumer:  # fmt: skip
    entity, consumer = bearer.entity, _consumer(bearer.entity)
    try:
        _check_address(bearer.cidrs, peer)
        _check_capabilities(vault, presented, right, _grant(entity, right))
    except NotAConsumerError as error:
        error.who = consumer.fields
        raise
    return consumer


def _consumer(entity: Mapping[str, Any]) -> Consumer:
    return Consumer(entity["id"], str(entity.get("name") or entity["id"]))


def _looked_up(vault: Connection, presented: Secret[str]) -> Mapping[str, Any]:
    try:
        found = vault.ask("POST", "auth/token/lookup", {"token": presented}).get("data")
    except BadTokenError:
        raise NotAConsumerError(Clause.UNKNOWN) from None
    except DeniedError:
        if presented.reveal().count(".") > 1:  # s.<random>.<namespace>
            raise NotAConsumerError(Clause.FOREIGN) from None
        raise
    if not isinstance(found, Mapping):
        raise unclear("a token")
    return found


def _check_token(found: Mapping[str, Any], namespace: str) -> None:
    if "root" in (found.get("policies") or ()):
        raise NotAConsumerError(Clause.ROOT)
    if str(found.get("namespace_path") or "").strip("/") != namespace and "namespace_path" in found:
        raise NotAConsumerError(Clause.FOREIGN)
    if found.get("num_uses") != 0:
        raise NotAConsumerError(Clause.LIMITED_USES)
    if found.get("type") == "batch":
        raise NotAConsumerError(Clause.BATCH)
    if not found.get("entity_id"):
        raise NotAConsumerError(Clause.NO_ENTITY)


def _check_address(cidrs: Sequence[str], peer: Address | None) -> None:
    # A dual-stack socket shows 192.0.2.1 as ::ffff:192.0.2.1
    plain = peer.ipv4_mapped or peer if isinstance(peer, IPv6Address) else peer
    try:
        bound = [ip_network(cidr, strict=False) for cidr in cidrs]
    except ValueError:
        hint = "use a token that is bound to CIDRs, or to none"
        raise UnclearError("Vault binds the token to addresses in an unknown form", hint=hint) from None
    if bound and not any(plain in network for network in bound if plain):
        raise NotAConsumerError(Clause.WRONG_ADDRESS, peer=peer or "a unix socket")


def _entity(vault: Connection, found: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        entity = vault.ask("GET", f"identity/entity/id/{found['entity_id']}").get("data")
    except (InputError, InvalidError):  # nothing there
        raise NotAConsumerError(Clause.NO_ENTITY) from None
    if not isinstance(entity, Mapping) or not isinstance(entity.get("id"), str):
        raise unclear("an entity")
    if entity.get("disabled") is not False:
        raise NotAConsumerError(Clause.DISABLED, name=entity.get("name"))
    return entity


def _grant(entity: Mapping[str, Any], right: str) -> str:
    """Return the hint that gives the consumer exactly `right`."""
    name = str(field_of(entity, "metadata", "consumer"))
    if "consumer" in (entity.get("metadata") or ()) and NAME.fullmatch(name):
        account, application = right.split("/")[3:5]
        check = f"broker policy check {account}/{application} --consumer {name}"
        return f"a Vault administrator gets the command that grants it from: {check}"
    return f'a Vault administrator writes a policy for it: path "{right}" {{ capabilities = ["update"] }}'


def grant_hint(name: str, rights: Collection[str]) -> str:
    """Return the hint that gives the enrolled consumer `name` exactly `rights`: all that it should have."""
    options = [f"--right {'/'.join(right.split('/')[3:5])}" for right in sorted(rights)]
    return f"a Vault administrator grants it: broker vault enrol {name} {' '.join(options)}"


def _check_capabilities(vault: Connection, presented: Secret[str], right: str, grant: str) -> None:
    sentinels = _sentinels()
    granted = _capabilities(vault, presented, [right, *sentinels])
    if any("root" in names for names in granted.values()):
        raise NotAConsumerError(Clause.ROOT)
    if any("sudo" in granted[path] for path in sentinels):
        raise NotAConsumerError(Clause.SUDO, where="paths that it was not given", right=right)
    if "sudo" in granted[right]:
        raise NotAConsumerError(Clause.SUDO, where=right, right=right)
    if any(granted[path] != ["deny"] for path in sentinels):
        raise NotAConsumerError(Clause.TOO_WIDE, right=right)
    if granted[right] == ["deny"]:
        raise NotAConsumerError(Clause.NO_RIGHT, right=right, grant=grant)
    if granted[right] != ["update"]:
        raise NotAConsumerError(Clause.TOO_MUCH, right=right, granted=", ".join(granted[right]))


def _sentinels() -> tuple[str, str]:
    """Return a path in the form of a right, and one in any form: random, so that no policy can name them."""
    words = [secrets.token_hex(8) for _ in range(6)]
    return "/".join([layout.RIGHTS, *words[:4], layout.DIRECT]), f"{words[4]}/{words[5]}"


def _capabilities(vault: Connection, presented: Secret[str], paths: Sequence[str]) -> Mapping[str, list[str]]:
    try:
        answer = vault.ask("POST", "sys/capabilities", {"token": presented, "paths": list(paths)})
    except InvalidError:  # the token, or its entity, ended after the look-up
        raise NotAConsumerError(Clause.UNKNOWN) from None
    except LackingError:  # the broker itself may not ask
        raise
    except DeniedError:
        raise NotAConsumerError(Clause.UNREADABLE) from None
    granted = {path: field_of(answer, "data", path) for path in paths}
    if not all(isinstance(value, list) and value for value in granted.values()):
        raise unclear("sys/capabilities")
    return {path: sorted(map(str, value)) for path, value in granted.items()}
