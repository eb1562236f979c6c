"""Options that name a consumer: its rights, its subject at an issuer, and a token or JWT of it."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from broker.cli.completion import application_names
from broker.cli.options import split_application
from broker.errors import InputError
from broker.model.names import checked_name

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)  # RFC 1123, as Kubernetes names

rights_option = click.option(
    "--right",
    "rights",
    multiple=True,
    metavar="ACCOUNT/APPLICATION",
    callback=lambda _, __, values: tuple(map(split_application, values)),
    shell_complete=application_names,
    help="A right (repeatable).",
)


def subject_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--issuer with --subject or --service-account, as the parameter `subject`: both names, or None."""

    @wraps(function)
    def command(*args: Any, issuer: str, subject: str, service_account: str, **given: Any) -> Any:
        return function(*args, subject=_subject(issuer, subject, service_account), **given)

    options = (
        ("--issuer", "NAME", "Issuer of the consumer's JWTs: [issuers.NAME] in broker.toml."),
        ("--subject", "SUB", "Subject of its JWTs, exactly."),
        ("--service-account", "NAMESPACE/NAME", "Or the Kubernetes service account that is the subject."),
    )
    for name, metavar, text in reversed(options):
        command = click.option(name, default="", metavar=metavar, help=text)(command)
    return command


def _subject(issuer: str, subject: str, service_account: str) -> tuple[str, str] | None:
    if not (issuer or subject or service_account):
        return None
    if not issuer or bool(subject) == bool(service_account):
        raise InputError("--issuer needs one of --subject and --service-account, and they need it")
    if not subject:
        namespace, slash, name = service_account.partition("/")
        if not slash:
            raise InputError(f"{service_account[:80]!r} is no service account", hint="write NAMESPACE/NAME")
        parts = (checked_name(namespace, "namespace"), _service_account(name))
        return issuer, ":".join(("system:serviceaccount", *parts))
    if not subject.isprintable():
        raise InputError("--subject contains a control character", hint="use a single line of text")
    return issuer, subject


def _service_account(name: str) -> str:
    if not _SUBDOMAIN.fullmatch(name):
        raise InputError(f"{name[:80]!r} is no service account", hint="use a-z, 0-9, '-' and '.'")
    return name
