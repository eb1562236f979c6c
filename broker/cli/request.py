"""`broker request`: one signed request to the partner, from a shell."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import wraps
from typing import Any, Final

import click

from broker.cli.bundle_options import Asked, asked_options
from broker.cli.options import confirm, read_input, yes_option
from broker.cli.output import clean, note, show_details, show_json, show_table, step, take_format, wants, wants_json
from broker.cli.start import Start
from broker.compose.calling import Answer, Call, lent
from broker.copies import replace
from broker.errors import BrokerError, InputError
from broker.model.authentication import Request
from broker.model.duration import parse_duration
from broker.partners.request import METHODS, join

_LEASE: Final = timedelta(minutes=10)  # it is given back at the end
_SAFE: Final = ("GET", "HEAD")
_NOWHERE: Final = "https://partner.invalid"  # paths are checked before a bundle is fetched


def _call_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """METHOD, PATH, --all, --body, --content-type, --accept and --timeout, as the parameter `call`."""

    @wraps(function)
    def command(*args: Any, body: str, content_type: str, accept: str, timeout: str, **given: Any) -> Any:
        call = Call(given.pop("method"), given.pop("path"), {}, parse_duration(timeout), given.pop("everything"))
        if call.everything and call.method != "GET":
            raise InputError("--all is for GET", hint="leave it out")
        if body and call.method in _SAFE:
            raise InputError(f"a {call.method} has no body", hint="leave out --body, or use another method")
        if content_type and not body:
            raise InputError("--content-type requires --body", hint="--body FILE, or - for standard input")
        join(_NOWHERE, call.path)
        types = {"Content-Type": (content_type or "application/json") if body else "", "Accept": accept}
        headers = {name: value for name, value in types.items() if value}
        for name, value in headers.items():
            Request(call.method, _NOWHERE).with_header(name, value)
        call = replace(call, headers=headers, body=read_input(body) if body else b"")
        return function(*args, call=call, **given)

    for decorate in reversed(
        (
            click.argument("method", type=click.Choice(METHODS, case_sensitive=False)),
            click.argument("path"),
            click.option("--all", "everything", is_flag=True, help="Follow the list's pages to the end."),
            click.option("--body", default="", metavar="FILE|-", help="File to send."),
            click.option("--content-type", default="", metavar="TYPE", help="Its type.  [default: application/json]"),
            click.option("--accept", default="", metavar="TYPE", help="Type of the answer.  [default: the partner's]"),
            click.option("--timeout", default="60s", show_default=True, metavar="DURATION", help="For each exchange."),
        )
    ):
        command = decorate(command)
    return command


@click.command("request", epilog="Example: broker request acme/reporting GET '/fleets?pageSize=5' --all -o table")
@asked_options
@_call_options
@click.option("-i", "--include", is_flag=True, help="Show status and headers too.")
@yes_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["body", "table", "json"]),
    default="body",
    show_default=True,
    expose_value=False,
    callback=take_format,
    help="The body as it is, its items as a table, or JSON.",
)
@click.pass_obj
def command(start: Start, /, asked: Asked, call: Call, include: bool, yes: bool) -> None:
    """Send one request with an application's credentials: PATH is below the account's base URL.

    The credentials stay in memory, and their lease is given back at the end. Secrets that the partner repeats are
    hidden. With --all, bodies follow one another, a line each; with -o json, it is one list of all items. The quota
    that is left is printed to stderr.

    Exit codes: 2 if there is nothing at this path (404), 4 if the partner did not answer, failed or asks to wait
    (quota), 6 if it refused certificate, login, client_id or the request.
    """
    if call.method not in _SAFE:
        confirm(f"{call.method} {call.path} at {'/'.join(asked.application)}?", yes=yes)
    wanted = replace(asked.wanted(start), ttl=_LEASE)
    with lent(asked.source(start), wanted, start.config, note) as caller:
        _show(_seen(caller.answers(call), include or call.method == "HEAD"), call.everything)


def _seen(answers: Iterable[Answer], include: bool) -> Iterator[Answer]:
    """Yield answers that are successes. Print the head of each if asked to, and the quota that the last one left."""
    quota = ""
    try:
        for answer in answers:
            quota = answer.quota
            if include:
                _show_head(answer.head)
            answer.require_success()
            if answer.page != "1":
                step(f"page {answer.page}")
            yield answer
    finally:
        if quota:
            note(f"quota left: {quota}")


def _show(answers: Iterable[Answer], everything: bool) -> None:
    if wants("body"):
        for answer in answers:
            _show_body(answer, "\n" if everything else "")
        return
    documents = [answer.document for answer in answers]
    if wants_json():
        show_json(_all_items(documents) if everything else documents[0])
    else:
        _show_table(documents)


def _show_head(lines: list[str]) -> None:
    for line in [*lines, ""]:
        click.echo(clean(line) if line else "", err=not wants("body"))


def _show_body(answer: Answer, end: str) -> None:
    """Print a body: as it is, with `end`, or for a terminal so that nothing in it controls that."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(answer.body.removesuffix(end.encode()) + end.encode())
        return
    try:
        show_json(answer.document)
    except BrokerError:
        click.echo(clean(answer.body.decode(errors="replace"), keep_lines=True))


def _items(document: Any) -> list[Any] | None:
    """Return the items of a list: the document, or the list that HAL embeds; None if it is none."""
    if isinstance(document, list):
        return document
    embedded = document.get("_embedded") if isinstance(document, dict) else None
    lists = [value for value in embedded.values() if isinstance(value, list)] if isinstance(embedded, dict) else []
    return lists[0] if lists else None


def _all_items(documents: list[Any]) -> list[Any]:
    found = []
    for document in documents:
        items = _items(document)
        found += [document] if items is None else items
    return [item for item in found if item is not None]


def _show_table(documents: list[Any]) -> None:
    """Print items in columns, those with plain values; one thing alone as names and values."""
    only = documents[0]
    if len(documents) == 1 and isinstance(only, dict) and _items(only) is None:
        show_details({name: _cell(value) for name, value in only.items() if name[:1] != "_"})
        return
    rows = [item if isinstance(item, dict) else {"value": item} for item in _all_items(documents)]
    plain = [(name, value) for row in rows for name, value in row.items() if not isinstance(value, dict | list)]
    names = list(dict.fromkeys(name for name, _ in plain if name[:1] != "_"))
    show_table(names, [[_cell(row.get(name)) for name in names] for row in rows], empty="the list is empty")


def _cell(value: Any) -> object:
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)
