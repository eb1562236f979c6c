"""Who shows this token, and may they? Vault's policies decide; we make sure that the answer means what it seems to.

`sys/capabilities` says whether, not who; `auth/token/lookup` says who, and neither looks at the peer's address. Each
alone lets through what the other stops, so both are asked, about the right and about two paths nobody has a right to.
Sources: Vault API, "/sys/capabilities" and "/auth/token"; what they leave out was measured.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final

from broker.errors import DeniedError
from broker.issuing.ports import Consumer
from broker.model.secret import Secret
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.errors import BadTokenError, InvalidError, MissingError, UnclearError, UnmountedError
from broker.vault.responses import field_of, unclear

__all__ = ["Address", "Clause", "NotAConsumerError", "authorize"]

Address = IPv4Address | IPv6Address

_NEEDED: Final = ["update"]
_TOKEN_LENGTH: Final = 8192


class Clause(Enum):
    """Why somebody is not let in, for programs. The message is for people."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown-token"
    ROOT = "root"
    SUDO = "sudo"
    TOO_WIDE = "matches-everything"
    TOO_MUCH = "more-than-update"
    NO_RIGHT = "no-right"
    LIMITED_USES = "num-uses"
    BATCH = "batch-token"
    UNREADABLE = "unreadable-policies"
    NO_ENTITY = "no-entity"
    DISABLED = "disabled-entity"
    FOREIGN = "foreign-namespace"
    WRONG_ADDRESS = "bound-cidr"


class NotAConsumerError(DeniedError):
    """The token does not make its bearer a consumer of this right."""

    def __init__(self, clause: Clause, what: str, *, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.clause = clause


def authorize(vault: Connection, presented: Secret[str], right: str, *, peer: Address | None) -> Consumer:
    """Return the consumer that `presented` belongs to, if it may do `right` (a path made by `layout.right`).

    `peer` is the address that the connection really comes from, None for a unix socket. Raise `NotAConsumerError`
    for whoever shows the token, and plain `DeniedError` where the broker itself may not ask.
    """
    _check_form(presented)
    found = _looked_up(vault, presented)
    _check_token(found, vault.settings.namespace)
    _check_address(found, peer)
    entity = _entity(vault, found)
    _check_capabilities(vault, presented, right)
    return Consumer(entity["id"], str(entity.get("name") or entity["id"]))


def _check_form(presented: Secret[str]) -> None:
    text = presented.reveal()
    # Vault takes an empty token to mean the asker's own, which is the broker's
    if not text or len(text) > _TOKEN_LENGTH or not text.isascii() or not text.isprintable() or " " in text:
        raise NotAConsumerError(Clause.MALFORMED, "what was shown is no token of Vault", hint="log in at Vault first")


def _looked_up(vault: Connection, presented: Secret[str]) -> Mapping[str, Any]:
    try:
        found = vault.ask("POST", "auth/token/lookup", {"token": presented}).get("data")
    except BadTokenError:
        raise NotAConsumerError(
            Clause.UNKNOWN, "Vault does not know the token that was shown", hint="has it expired? log in at Vault again"
        ) from None
    except DeniedError:
        if presented.reveal().count(".") > 1:  # s.<random>.<namespace>
            raise _foreign() from None
        raise DeniedError(
            "the broker may not ask Vault whose token was shown", hint="run: broker vault setup, for the server's role"
        ) from None
    if not isinstance(found, Mapping):
        raise unclear("a token")
    return found


def _check_token(found: Mapping[str, Any], namespace: str) -> None:
    if "root" in (found.get("policies") or ()):
        raise NotAConsumerError(
            Clause.ROOT, "a root token is nobody's in particular, so no bundle is given for it", hint=_OWN
        )
    if str(found.get("namespace_path") or "").strip("/") != namespace and "namespace_path" in found:
        raise _foreign()
    if found.get("num_uses") != 0:
        raise NotAConsumerError(
            Clause.LIMITED_USES, "a token with a limited number of uses cannot be a consumer's", hint=_OWN
        )
    if found.get("type") == "batch":
        raise NotAConsumerError(
            Clause.BATCH, "a batch token cannot be revoked, so nobody could stop who holds it", hint=_SERVICE
        )
    if not found.get("entity_id"):
        raise NotAConsumerError(
            Clause.NO_ENTITY,
            "the token has no entity in Vault, so nobody could be named as the holder",
            hint="log in by a method of Vault (AppRole, JWT, Kubernetes), not by a token that was created",
        )


def _check_address(found: Mapping[str, Any], peer: Address | None) -> None:
    bound = found.get("bound_cidrs") or ()
    if not bound:
        return
    try:
        inside = peer is not None and any(_plain(peer) in ip_network(cidr, strict=False) for cidr in bound)
    except ValueError:
        raise UnclearError(
            "Vault binds the token to addresses in a way unknown to us",
            hint="use a token that is bound to CIDRs, or to none",
        ) from None
    if not inside:
        raise NotAConsumerError(
            Clause.WRONG_ADDRESS,
            f"the token is bound to addresses, and {peer or 'a unix socket'} is none of them",
            hint="use it from where it was issued for",
        )


def _entity(vault: Connection, found: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        entity = vault.ask("GET", f"identity/entity/id/{found['entity_id']}").get("data")
    except (MissingError, UnmountedError, InvalidError):
        raise NotAConsumerError(
            Clause.NO_ENTITY, "the token's entity is gone from this namespace of Vault", hint="log in at Vault again"
        ) from None
    if not isinstance(entity, Mapping) or not isinstance(entity.get("id"), str):
        raise unclear("an entity")
    if entity.get("disabled") is not False:
        raise NotAConsumerError(
            Clause.DISABLED, f"the entity {entity.get('name')} is disabled in Vault", hint="ask who runs Vault"
        )
    return entity


def _check_capabilities(vault: Connection, presented: Secret[str], right: str) -> None:
    sentinels = _sentinels()
    granted = _capabilities(vault, presented, [right, *sentinels])
    everything = {capability for path in granted.values() for capability in path}
    if "root" in everything:
        raise NotAConsumerError(Clause.ROOT, "the token may do everything, so no bundle is given for it", hint=_OWN)
    if "sudo" in everything:
        raise NotAConsumerError(Clause.SUDO, "the token has sudo, so no bundle is given for it", hint=_OWN)
    if any(granted[path] != ["deny"] for path in sentinels):
        raise NotAConsumerError(
            Clause.TOO_WIDE,
            "a policy of the token matches every right, also those that do not exist",
            hint="name partner, environment and account in the policy, as broker vault enrol does",
        )
    if granted[right] == ["deny"]:
        raise NotAConsumerError(
            Clause.NO_RIGHT,
            f"no policy of the token grants {right}",
            hint="grant it: broker vault enrol NAME --right ACCOUNT/APPLICATION",
        )
    if granted[right] != _NEEDED:
        raise NotAConsumerError(
            Clause.TOO_MUCH,
            f"the token's policies grant {', '.join(granted[right])} on {right}; exactly update is a right",
            hint='capabilities = ["update"], and nothing else, as broker vault enrol does',
        )


def _capabilities(vault: Connection, presented: Secret[str], paths: Sequence[str]) -> Mapping[str, list[str]]:
    try:
        answer = vault.ask("POST", "sys/capabilities", {"token": presented, "paths": list(paths)})
    except InvalidError:  # between the look-up and here it ended, or its entity did
        raise NotAConsumerError(
            Clause.UNKNOWN, "Vault no longer knows the token that was shown", hint="log in at Vault again"
        ) from None
    except DeniedError:
        if not _may_ask(vault):
            raise
        raise NotAConsumerError(
            Clause.UNREADABLE,
            "Vault can make nothing of the token's policies",
            hint="is one templated on the identity, and does the entity's metadata hold a wildcard?",
        ) from None
    data = answer.get("data")
    granted = {path: data.get(path) for path in paths} if isinstance(data, Mapping) else {}
    if not granted or not all(isinstance(value, list) and value for value in granted.values()):
        raise UnclearError("Vault's answer about capabilities leaves paths out", hint="is it a Vault? check VAULT_ADDR")
    return {path: sorted(str(capability) for capability in value or ()) for path, value in granted.items()}


def _may_ask(vault: Connection) -> bool:
    """Say whether the broker has the right to ask what a token may do: else Vault's "denied" is about us."""
    answer = vault.ask("POST", "sys/capabilities-self", {"paths": ["sys/capabilities"]})
    return "update" in (field_of(answer, "data", "sys/capabilities") or ())


def _sentinels() -> tuple[str, str]:
    """Return a path of a right's shape, and one of any: random, so that no policy can name them."""
    words = [secrets.token_hex(8) for _ in range(6)]
    return "/".join([layout.RIGHTS, *words[:4], layout.Access.DIRECT.value]), f"{words[4]}/{words[5]}"


def _plain(address: Address) -> Address:
    """Return the IPv4 address that a dual-stack socket shows as ::ffff:192.0.2.1."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _foreign() -> NotAConsumerError:
    return NotAConsumerError(
        Clause.FOREIGN, "the token belongs to another namespace of Vault", hint="log in where the broker is"
    )


_OWN: Final = "log in at Vault as the consumer itself"
_SERVICE: Final = "log in by a role whose token_type is service"
