"""Print results: stdout is data, as a table or as JSON; stderr is for people."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from broker.model.finding import Finding
    from broker.model.todo import Obstacle

_COLOURS: Final = {"error": "red", "warning": "yellow", "note": "cyan"}  # of a finding, by its severity

_GAP: Final = 2  # blanks between columns
_FORMAT: Final = "broker.format"
_FORMULA: Final = tuple("=+-@\t\r")  # a spreadsheet takes what begins so for a formula (OWASP, "CSV Injection")


def take_format(ctx: click.Context, _: click.Parameter, value: str) -> str:
    """Remember the format of the output. For `callback=`."""
    ctx.meta[_FORMAT] = value
    return value


OUTPUT: Final = click.Option(  # of every command; read by `wants_json`
    ["-o", "--output"],
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    expose_value=False,
    callback=take_format,
    help="Format of the output.",
)


def wants_json() -> bool:
    """Return whether the command was given `-o json`."""
    return wants("json")


def wants(name: str) -> bool:
    """Return whether the command was given `-o` with this format."""
    return click.get_current_context().meta.get(_FORMAT) == name


def wrote_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bool:
    """Print `rows` one by one if the command was given `-o csv` (RFC 4180); return whether it was.

    No cell is a formula or has control characters, whatever its text.
    """
    if not wants("csv"):
        return False
    import csv  # only here: start-up counts

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    sys.stdout.flush()
    return True


def wrote_json(value: Any) -> bool:
    """Print `value` if the command was given `-o json`; return whether it was."""
    if wants_json():
        show_json(value)
    return wants_json()


def show_json(value: Any) -> None:
    """Print `value` as JSON; datetimes in ISO 8601, UTC. Control characters beyond ASCII are escaped too."""
    text = json.dumps(value, indent=2, default=_plain, ensure_ascii=False)
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def _columns() -> int:
    import shutil  # only on a terminal: start-up counts

    return shutil.get_terminal_size().columns


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    empty: str = "nothing",
    colours: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Print a table; a block for each row if the terminal is too narrow. `empty` goes to stderr.

    `colours` are those of cells, on a terminal.
    """
    shown = [[clean(cell) for cell in row] for row in rows]
    if not shown:
        note(empty)
        return
    lines = [[c.upper() for c in columns], *shown]
    widths = [max(_width(row[n]) for row in lines) for n in range(len(columns))]
    if sys.stdout.isatty() and sum(widths) + _GAP * (len(widths) - 1) > _columns():
        _show_blocks(columns, shown, colours)
        return
    for number, row in enumerate(lines):
        blanks = [" " * (width - _width(cell) + _GAP) for cell, width in zip(row, widths, strict=True)]
        text = "".join(_coloured(cell, colours) + blank for cell, blank in zip(row, blanks, strict=True)).rstrip()
        click.echo(styled(text, bold=True) if number == 0 else text)


def show_details(pairs: Mapping[str, object], colours: Mapping[str, str] = MappingProxyType({})) -> None:
    """Print names and values, one a line; `colours` as in `show_table`."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        lines = clean(value, keep_lines=True).splitlines() or [""]
        click.echo(f"{name.ljust(width)}  {_coloured(lines[0], colours)}".rstrip())
        for line in lines[1:]:
            click.echo(f"{' ' * width}  {line}")


def show_findings(findings: Iterable[Finding], *, err: bool = True) -> None:
    """Print findings, each with its hint."""
    for finding in findings:
        mark = styled(finding.severity.value, fg=_COLOURS[finding.severity.value])
        click.echo(f"  {mark}: {clean(finding.message)} [{finding.code}]", err=err)
        if finding.hint:
            click.echo(f"    hint: {clean(finding.hint)}", err=err)


def show_obstacles(obstacles: Iterable[Obstacle]) -> None:
    """Print each reason not to ask the partner, and the command that ends it."""
    for obstacle in obstacles:
        note(f"{obstacle.message}: {obstacle.hint}")


def note(text: str) -> None:
    """Print a line for people, to stderr."""
    click.echo(clean(text, keep_lines=True), err=True)


def show_done(done: str, *, changed: bool = True, **facts: object) -> None:
    """Print the result of a change, or that nothing was left to do; as JSON, `facts` too."""
    if not wrote_json({"success": True, "changed": changed, **facts}):
        note(done if changed else f"{done} already: nothing to do")


def step(text: str) -> None:
    """Print the progress of long work, on a terminal only."""
    if sys.stderr.isatty():
        click.echo(styled(f"… {text}", dim=True), err=True)


def styled(text: str, **style: Any) -> str:
    """Return `text` with colours, unless NO_COLOR (no-color.org) is set or the terminal is dumb."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, **style)


def when(moment: datetime | None, now: datetime) -> str:
    """Return a time for people: the date, and the distance from `now`."""
    return f"{moment:%F} ({_distance(moment, now)})" if moment else "-"


def at_time(moment: datetime | None, now: datetime) -> str:
    """Return a time for people as `when` does, with hour and minute in UTC."""
    return f"{moment:%F %H:%MZ} ({_distance(moment, now)})" if moment else "-"


def _distance(moment: datetime, now: datetime) -> str:
    days = (moment - now).total_seconds() / 86400
    if abs(days) < 1:
        hours = abs(days) * 24
        far = f"{hours:.0f}h" if hours >= 1 else f"{hours * 60:.0f}min"
    else:
        far = f"{abs(days):.0f}d"
    return f"in {far}" if days >= 0 else f"{far} ago"


def clean(value: object, *, keep_lines: bool = False) -> str:
    """Return text without control characters: text from a partner must not control a terminal."""
    kept = "\n\t" if keep_lines else ""
    text = "-" if value is None or value == "" else str(value)
    return "".join(c if c.isprintable() or c in kept else "?" for c in text)


def _show_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], colours: Mapping[str, str]) -> None:
    """Print a block for each row: a table that wraps breaks the commands in it."""
    for number, row in enumerate(rows):
        if number:
            click.echo()
        show_details(dict(zip(columns, row, strict=True)), colours)


def _cell(value: object) -> str:
    if value in (None, ""):
        return ""
    text = str(_plain(value)) if isinstance(value, datetime) else clean(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _coloured(text: str, colours: Mapping[str, str]) -> str:
    return styled(text, fg=colours[text]) if text in colours else text


def _width(text: str) -> int:
    """Return the number of columns of `text` on a terminal (UAX 11)."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Enum):
        return value.value
    names = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
    if names and not isinstance(value, type):
        named = {name: getattr(value, name) for name in names}
        return {name: inner for name, inner in named.items() if not isinstance(inner, type)}  # no class is data
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not data")
