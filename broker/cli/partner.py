"""`broker partner`: profiles of partners."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from broker.cli.noun import Noun
from broker.cli.options import read_input
from broker.cli.output import note, show_details, show_done, show_json, show_table, wrote_json
from broker.cli.start import Start
from broker.errors import BrokerError, InputError, RefusedError
from broker.model.role import Role
from broker.partners import catalogue
from broker.partners.document import parse, to_document
from broker.partners.profile import Profile


@click.group("partner", cls=Noun, epilog="Example: broker partner list")
def command() -> None:
    """Show and add partner profiles: environments and rules for subject, key, authentication and renewal."""


@command.verb("list", example="broker partner list")
def list_(start: Start) -> None:
    """List built-in profiles and those added to Vault."""
    profiles = list(_all(start))
    if wrote_json([{"name": p.name, "title": p.title, "source": where} for p, where in profiles]):
        return
    show_table(
        ["profile", "title", "environments", "source"],
        [(p.name, p.title, ", ".join(p.environments), where) for p, where in profiles],
    )


@command.verb("show", example="broker partner show stellantis -o toml > my-partner.toml")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "toml"]),
    default="table",
    show_default=True,
    help="Format of the output; toml is the start of a custom profile.",
)
def show(start: Start, name: str, output: str) -> None:
    """Show a profile, and which values the partner has not published."""
    found = catalogue.builtin(name) if name in catalogue.names() else start.broker.profile(name, Role.OPERATOR)
    document = to_document(found)
    if output == "json":
        show_json(document)
        return
    if output == "toml":
        click.echo(catalogue.builtin_source(name) if name in catalogue.names() else _toml(document), nl=False)
        return
    show_details(dict(_flat({k: v for k, v in document.items() if k != "operations"})))
    click.echo(f"operations  {len(found.operations)}")
    if found.unknowns:
        note(f"not published by the partner: {', '.join(found.unknowns)}")


@command.verb("add", example="broker partner add my-partner.toml")
@click.argument("file", metavar="FILE|-")
def add(start: Start, file: str) -> None:
    """Add or replace a custom profile from a TOML file. Start from a copy: broker partner show NAME -o toml."""
    try:
        text = read_input(file).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text") from None
    profile = parse(text, file)
    start.broker.add_profile(profile)
    done = f"profile {profile.name}: {', '.join(profile.environments)}"
    show_done(done, profile=profile.name, environments=list(profile.environments))


def _all(start: Start) -> Iterator[tuple[Profile, str]]:
    yield from ((catalogue.builtin(name), "built-in") for name in catalogue.names())
    try:
        own = start.broker.own_profiles(Role.OPERATOR)
    except BrokerError as error:
        note(f"note: profiles in Vault are not listed ({error.message})")
        return
    for finding in own.unread.values():
        note(f"note: {finding.message}, so it is not listed; {finding.hint}")
    for name in own.found:
        try:
            yield catalogue.load(name, own.found), "vault"
        except (InputError, RefusedError) as error:  # the others may be readable
            note(f"note: {error.message}, so it is not listed; {error.hint}")


def _toml(document: Mapping[str, Any]) -> str:
    """Return a profile's document as TOML: a table for each part, a line for each value."""
    plain = [f"{key} = {_inline(value)}" for key, value in document.items() if not isinstance(value, Mapping)]
    tables = [(key, value) for key, value in document.items() if isinstance(value, Mapping)]
    lines = [*plain]
    for key, table in tables:
        lines += ["", f"[{key}]", *(f"{_inline(name)} = {_inline(value)}" for name, value in table.items())]
    return "\n".join([*lines, ""])


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_inline(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and booleans look the same in TOML


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            rows += _flat(inner, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", ", ".join(map(str, inner)) if isinstance(inner, list | tuple) else inner))
    return rows
