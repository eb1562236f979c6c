"""Import an account: each step as the role that may do it, in an order in which a killed import can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from broker.model.account import Account
from broker.model.clock import Stamp
from broker.model.finding import Finding
from broker.model.generation import Generation
from broker.model.names import AccountName
from broker.model.role import Role
from broker.model.stage import Stage
from broker.pki.reply import ReplyParts
from broker.rotation.importing import Importing, ImportPlan, adopt, may_try, noted
from broker.rotation.reports import Promotion
from broker.vault.other_secrets import OtherSecret, read_other

if TYPE_CHECKING:  # a cycle: `Broker` offers this
    from broker.compose.graph import Broker


class Imported(Struct, frozen=True):
    """A finished import. `generation` is the one with the certificate, if there is one."""

    account: Account
    generation: Generation | None
    promotion: Promotion | None


class Imports:
    """Plan an import, and carry it out."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def other_secret(self, place: str) -> OtherSecret:
        """Return the secret of somebody else at `place`, read with the caller's own token."""
        return read_other(self._broker.roles.settings, place)

    def accounts(self) -> tuple[dict[AccountName, Account], tuple[Finding, ...]]:
        """Return all accounts, read as the operator, and findings about those that cannot be read."""
        found = self._broker.roles.accounts(Role.OPERATOR).all()
        return {AccountName(name): account for name, account in found.found.items()}, tuple(found.unread.values())

    def plan(self, importing: Importing) -> ImportPlan:
        """Return what an import would do; raise `RefusedError` if the account was removed."""
        if importing.account.head.number:
            self._broker.registry.seen(importing.account.name)
        return importing.plan(Stamp(self._broker.true_clock(), self._broker.actor))

    def carry_out(self, plan: ImportPlan) -> Imported:
        """Import as planned. The steps that are done already change nothing.

        Raise `InputError`, before anything is stored, if a role that acts later has no login on this host.
        """
        broker, name, wishes = self._broker, plan.account.name, plan.wishes
        rotates = plan.key or plan.reply or wishes.held_by
        for role in filter(None, (Role.ROTATOR if rotates else None, Role.CANARY if plan.tries else None)):
            broker.roles.connection(role)
        if plan.is_new:
            broker.registry.add_account(plan.account)
        else:
            broker.registry.settle(name)  # what a killed import has left
        if plan.password and not broker.account(name, Role.OPERATOR).password:  # another import may have set it
            broker.registry.set_secret(name, plan.password)
        for application, client_id in plan.client_ids.items():
            broker.registry.add_application(name, application, client_id)
        if plan.key:
            adopt(broker.rotation, plan, plan.key)
        if wishes.held_by:
            broker.rotation.settled(name, lambda account, stamp: noted(account, plan, stamp))
        if plan.reply is None:
            return Imported(broker.account(name, Role.OPERATOR), None, None)
        return self._received(plan, plan.reply)

    def _received(self, plan: ImportPlan, reply: ReplyParts) -> Imported:
        rotation = self._broker.rotation
        received = rotation.receive(plan.account.name, reply, plan.wishes.options)
        generation, profile = received.generation, rotation.profile(received.account)
        if generation.stage is not Stage.CANDIDATE or not may_try(received.account, profile):
            return Imported(received.account, generation, None)
        promotion = rotation.promote(plan.account.name, generation.number)
        account = self._broker.account(plan.account.name, Role.ROTATOR)
        return Imported(account, account.generation(promotion.generation), promotion)
