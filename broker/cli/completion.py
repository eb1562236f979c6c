"""Complete the names of accounts and applications in a shell. Silent and quick, also if Vault is away."""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from broker.cli.start import begin

if TYPE_CHECKING:
    from broker.model.account import Account

_PATIENCE: Final = "1s"


def account_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the accounts that begin with `incomplete`."""
    return _found(ctx, incomplete, lambda account: [account.name])


def application_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the applications, as ACCOUNT/APPLICATION, that begin with `incomplete`."""
    return _found(ctx, incomplete, lambda account: [f"{account.name}/{app.name}" for app in account.applications])


def _found(ctx: click.Context, incomplete: str, names: Callable[["Account"], Iterable[str]]) -> list[str]:
    """Return `names` of all accounts, none if they cannot be read: a shell that completes has no place for an error."""
    root, found = ctx.find_root(), []
    with ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(redirect_stderr(nowhere))
        stack.enter_context(suppress(Exception))
        stack.enter_context(root.scope())  # at its end the token is given back
        start = begin(None)
        start.take("timeout", _PATIENCE)
        if config := root.params.get("config"):
            start.take("config", config)
        found = [name for account in start.broker.all_accounts() for name in names(account)]
    return sorted(name for name in found if name.startswith(incomplete))
