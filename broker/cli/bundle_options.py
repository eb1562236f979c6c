"""The bundle that a command asks for, and as which consumer: options of `bundle get`, `exec` and `request`."""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from msgspec import Struct

from broker.cli.broker_service import service, token
from broker.cli.options import application_argument
from broker.cli.output import note
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.bundle import Source, Wanted
from broker.model.duration import parse_duration
from broker.model.lease import Caller
from broker.model.names import AccountName


class Asked(Struct, frozen=True):
    """A bundle of ACCOUNT/APPLICATION, for the consumer whose token is in a file, or the one that BROKER_AUTH names."""

    application: tuple[AccountName, str]
    token_file: str
    ttl: str
    allow_expired: bool = False

    def wanted(self, start: Start) -> Wanted:
        """Return the request for the bundle."""
        ttl = parse_duration(self.ttl or start.config["bundle.ttl"])
        return Wanted(*self.application, ttl, allow_expired=self.allow_expired)

    def source(self, start: Start, say: Callable[[str], None] = note) -> Source:
        """Return the service if one is configured, else the use-case with this host's login; raise `InputError`."""
        if not start.config["service.address"] and not self.token_file:
            raise InputError(
                "no identity of a consumer is given",
                hint="--consumer-token-file PATH; or BROKER_ADDR and BROKER_AUTH for a broker service",
            )
        return service(start, self.token_file, say) or start.broker.issuing.issuer(Caller(token(self.token_file)))

    def origin(self, start: Start) -> str:
        """Return a digest of the service and the identity; "" for a token on standard input."""
        if self.token_file == "-":  # noqa: S105  # no password
            return ""
        config = start.config
        named = (config["service.address"], config["vault.address"], config["vault.namespace"], config["vault.mount"])
        return hashlib.sha256("\0".join((*named, self.token_file or config["service.auth"])).encode()).hexdigest()


ttl_option = click.option(
    "--ttl", default="", metavar="DURATION", help="Lifetime of the lease, such as 15m; one hour at most."
)


def asked_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """ACCOUNT/APPLICATION, --consumer-token-file, a command's --ttl and --allow-expired, as the parameter `asked`."""

    @wraps(function)
    def command(*args: Any, application: Any, consumer_token_file: str, **given: Any) -> Any:
        asked = Asked(application, consumer_token_file, given.pop("ttl", ""), given.pop("allow_expired", False))
        return function(*args, asked=asked, **given)

    token_file = click.option(
        "--consumer-token-file", default="", metavar="PATH|-", help="Vault token of the consumer."
    )
    return application_argument(token_file(command))
