"""Consumers in Vault: a policy with their rights, an entity that identifies them, and a login.

The entity is the consumer's for all its logins, so one consumer may have an AppRole and a subject at each issuer. At an
issuer's JWT mount each subject has a role of its own, which names subject and audience.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from broker.errors import DeniedError, RefusedError, UnknownNameError
from broker.model.jwt_issuer import JwtIssuer
from broker.model.names import NAME, checked_name
from broker.vault import layout
from broker.vault.approle import role_id, role_path, text
from broker.vault.capabilities import grant_hint
from broker.vault.connection import Connection
from broker.vault.errors import Document, unclear
from broker.vault.ownership import found, looked_up, mounts_of, names_at, require_set_up
from broker.vault.policies import consumer_policy, installed, policy_kind, policy_name
from broker.vault.policies import rights as rights_of
from broker.vault.setup import LOGIN

JWT_LOGIN: Final = {
    "role_type": "jwt",
    "user_claim": "sub",
    "token_no_default_policy": True,
    "token_ttl": 2 * 60,  # seconds; the service uses a token for one, and then exchanges the JWT again
    "token_max_ttl": 2 * 60,
    "token_type": "service",
}


class Subject(Struct, frozen=True):
    """A subject at an issuer: the `sub` of its JWTs."""

    issuer: JwtIssuer
    name: str

    @property
    def role(self) -> str:
        """The path of its role in Vault's API."""
        return f"auth/{self.issuer.mount}/role/{self.issuer.role(self.name)}"

    def body(self, policy: str) -> Document:
        """Return the role: exactly this subject, for our audience, gets `policy`."""
        bound = {"bound_audiences": [self.issuer.audience], "bound_subject": self.name}
        return {**JWT_LOGIN, **bound, "token_policies": [policy]}


class Login(Struct, frozen=True):
    """A login of a consumer: `subject` is its name at the `mount` below `auth/`, for AppRole the role-id."""

    mount: str
    subject: str


class Enrolled(Struct, frozen=True):
    """A consumer as Vault has it. `rights` are paths made by `layout.right`."""

    name: str
    rights: tuple[str, ...]
    logins: tuple[Login, ...]
    disabled: bool

    def require(self, right: str) -> None:
        """Raise `DeniedError` with the reason if the consumer may not do `right`."""
        grant = grant_hint(self.name, {*self.rights, right})
        if right not in self.rights:
            raise DeniedError(f"{self.name} lacks update on {right}", hint=grant)
        if not self.logins:
            raise DeniedError(f"{self.name} has the right, but no login", hint=f"{grant} --login-dir {self.name}")
        if self.disabled:
            message = f"the entity of {self.name} is disabled in Vault"
            raise DeniedError(message, hint="ask the administrator of Vault")


def consumer_role(name: str) -> str:
    """Return the name of the consumer's policy and AppRole; it can never be one of our own roles."""
    return f"consumer-{checked_name(name, 'consumer')}"


def enrol_consumer(
    vault: Connection, name: str, rights: Sequence[str], subject: Subject | None = None
) -> tuple[str, ...]:
    """Make, or update, consumer `name` with exactly `rights` (from `layout.right`), and a login; return lost rights.

    The login is `subject`, or without one an AppRole, for which `approle.provide_login` makes a secret-id. Raise
    `RefusedError` if others have a role, a policy, an entity or a subject of these names: nothing is changed then.
    """
    there = _Consumer(vault, name)
    policy_text = consumer_policy(rights)
    require_set_up(vault)
    there.require_ours()
    accessor = _accessor(vault, subject.issuer.mount if subject else vault.settings.mount)
    if subject:
        there.require_free(subject, accessor)
    vault.call("POST", there.policy_path, {"policy": policy_text})
    vault.call("POST", there.entity_path, {"metadata": {"consumer": name}})
    if subject:  # the role last: its first login would make an entity for a subject that has none
        known_as = subject.name
        there.name_entity(known_as, accessor)
        _write_role(vault, subject.role, subject.body(there.policy))
    else:
        _write_role(vault, there.approle_path, {**LOGIN, "token_policies": [there.policy]})
        known_as = role_id(vault, consumer_role(name))
        there.name_entity(known_as, accessor)
    made = _Consumer(vault, name)
    made.require_rights(rights)
    made.require_login(known_as)
    return there.lost(rights)


def change_rights(vault: Connection, name: str, rights: Sequence[str]) -> tuple[str, ...]:
    """Give consumer `name` exactly `rights`, for all its logins; return those that it lost.

    Raise `UnknownNameError` if it is not enrolled.
    """
    there = _Consumer(vault, name)
    require_set_up(vault)
    there.require_ours()
    if there.policy_text is None or there.entity is None:
        raise _unknown(name)
    vault.call("POST", there.policy_path, {"policy": consumer_policy(rights)})
    _Consumer(vault, name).require_rights(rights)
    return there.lost(rights)


def remove_consumer(vault: Connection, name: str, issuers: Mapping[str, JwtIssuer]) -> bool:
    """Remove consumer `name`; return False if there was none.

    The policy goes first, so its rights end with the first write. If interrupted, remove it again.
    """
    there = _Consumer(vault, name)
    require_set_up(vault)
    there.require_ours()
    if not there.exists:
        return False
    by_mount = {issuer.mount: issuer for issuer in issuers.values()} | {vault.settings.mount: None}
    for login in there.logins:
        if login.mount not in by_mount:
            hint = "name its issuer in broker.toml, and remove the consumer then"
            raise RefusedError(f"{name} has a login at auth/{login.mount}/, which no [issuers] names", hint=hint)
    vault.call("DELETE", there.policy_path)
    vault.call("DELETE", there.approle_path)
    for login in there.logins:
        if issuer := by_mount[login.mount]:
            vault.call("DELETE", Subject(issuer, login.subject).role)
    vault.call("DELETE", there.entity_path)
    if _Consumer(vault, name).exists:
        raise unclear(there.policy_path)
    return True


def consumers(vault: Connection) -> tuple[Enrolled, ...]:
    """Return every consumer that was enrolled."""
    require_set_up(vault)
    prefix = policy_name(vault.settings.mount, "consumer-")
    names = names_at(vault, "sys/policies/acl")
    ours = sorted(key.removeprefix(prefix) for key in names if key.startswith(prefix))
    return tuple(consumer(vault, name) for name in ours if NAME.fullmatch(name))


def consumer(vault: Connection, name: str) -> Enrolled:
    """Return the consumer `name`; raise `UnknownNameError`."""
    there = _Consumer(vault, name)
    if there.policy_text is None:
        raise _unknown(name)
    return Enrolled(name, there.rights, there.logins, bool((there.entity or {}).get("disabled", True)))


class _Consumer:
    """What Vault has under the names of one consumer."""

    def __init__(self, vault: Connection, name: str) -> None:
        mount = vault.settings.mount
        self._vault, self._name = vault, name
        self.policy, self._entity_name = policy_name(mount, consumer_role(name)), policy_name(mount, name)
        self.policy_path = f"sys/policies/acl/{self.policy}"
        self.entity_path = f"identity/entity/name/{self._entity_name}"
        self.approle_path = role_path(vault, consumer_role(name))
        policy = found(vault, self.policy_path, "policy")
        self.policy_text = None if policy is None else str(policy["policy"])
        self.entity = found(vault, self.entity_path, "aliases")
        self._approle = found(vault, self.approle_path, "token_policies")

    @property
    def exists(self) -> bool:
        """Whether anything of the consumer is there."""
        return not (self.policy_text is None and self.entity is None and self._approle is None)

    @property
    def rights(self) -> tuple[str, ...]:
        """The rights that its policy grants."""
        granted = rights_of(self.policy_text or "")
        return tuple(path for _, path in granted if path.startswith(f"{layout.RIGHTS}/"))

    def lost(self, rights: Sequence[str]) -> tuple[str, ...]:
        """Return the rights that it had, and that are not among `rights`."""
        return tuple(path for path in self.rights if path not in rights)

    @property
    def logins(self) -> tuple[Login, ...]:
        """The names by which logins know the consumer."""
        aliases: Any = (self.entity or {}).get("aliases") or ()
        if not all(isinstance(alias, Mapping) for alias in aliases):
            raise unclear(self.entity_path)
        return tuple(
            Login(str(a.get("mount_path")).removeprefix("auth/").rstrip("/"), str(a.get("name"))) for a in aliases
        )

    def require_rights(self, rights: Sequence[str]) -> None:
        """Raise `UnclearError` unless its policy grants exactly `rights`: Vault did not do what it confirmed."""
        if set(self.rights) != set(rights):
            raise unclear(self.policy_path)

    def require_login(self, known_as: str) -> None:
        """Raise `UnclearError` unless logins know the consumer as `known_as`."""
        if known_as not in [login.subject for login in self.logins]:
            raise unclear(self.entity_path)

    def require_ours(self) -> None:
        """Raise `RefusedError` if others made one of these."""
        others = []
        if self._approle is not None and self.policy not in (self._approle.get("token_policies") or ()):
            others.append(f"the role {self.approle_path}")
        kind = policy_kind(installed("consumer.hcl"))
        if self._approle is None and self.policy_text and policy_kind(self.policy_text) != kind:
            others.append(f"the policy {self.policy}")
        if self.entity is not None and (self.entity.get("metadata") or {}).get("consumer") != self._name:
            others.append(f"the entity {self._entity_name}")
        if others:
            message = f"{' and '.join(others)} exists, and is no consumer that the broker enrolled"
            raise RefusedError(message, hint="give the consumer another name")

    def require_free(self, subject: Subject, accessor: str) -> None:
        """Raise `RefusedError` if another consumer, or others, have `subject`, or this consumer has another one."""
        mount = subject.issuer.mount
        for login in self.logins:
            if login.mount == mount and login.subject != subject.name:
                hint = f"broker vault enrol --remove {self._name}, then enrol it again"
                raise RefusedError(f"{self._name} has the subject {login.subject} at auth/{mount}/", hint=hint)
        alias = {"alias_name": subject.name, "alias_mount_accessor": accessor}
        holder = looked_up(self._vault, "identity/lookup/entity", alias, "name") or {}
        role = found(self._vault, subject.role, "token_policies")
        is_others = role is not None and self.policy not in (role.get("token_policies") or ())
        if is_others or holder.get("name", self._entity_name) != self._entity_name:
            message = f"the subject {subject.name} at auth/{mount}/ belongs to {holder.get('name') or 'others'}"
            raise RefusedError(message, hint="broker vault enrol --list shows whose it is")

    def name_entity(self, name: str, accessor: str) -> None:
        """Make the consumer's entity known under `name` at the mount `accessor`."""
        entity = found(self._vault, self.entity_path, "id")
        if entity is None:  # it was written just now
            raise unclear(self.entity_path)
        alias = {"name": name, "canonical_id": entity["id"], "mount_accessor": accessor}
        self._vault.call("POST", "identity/entity-alias", alias)


def _write_role(vault: Connection, path: str, body: Document) -> None:
    """Write the role of a login, and read it back."""
    vault.call("POST", path, body)
    if (found(vault, path, "token_policies") or {}).get("token_policies") != body["token_policies"]:
        raise unclear(path)


def _unknown(name: str) -> UnknownNameError:
    return UnknownNameError(f"no consumer {name} is enrolled", hint="broker vault enrol --list shows all")


def _accessor(vault: Connection, mount: str) -> str:
    there = mounts_of(vault, "sys/auth").get(f"{mount}/")
    if not there:
        raise UnknownNameError(f"this Vault has no auth/{mount}/", hint="run: broker vault setup --dry-run")
    return text({"data": there}, "accessor")
