"""The command `partner-standin`: serve, register accounts, switch faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import click

if TYPE_CHECKING:
    from partner_standin.faults import Fault

DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Serve a simulated partner: a CSR desk, and a Fleet Owner API over real mTLS.

    \b
    Examples:
      partner-standin serve --dir /tmp/partner --account MZP0000001:password.txt
      curl --data-binary @request.eml "$DESK/desk/requests?reply=zip" -o reply.zip
      partner-standin fault set --desk-url "$DESK" status-503=1m
      partner-standin fault list
    """


@main.command()
@click.option("--dir", "directory", type=DIRECTORY, required=True, help="Directory for CAs, accounts and standin.json.")
@click.option("--api-port", type=click.IntRange(0, 65535), default=0, help="0 picks a free one.")
@click.option("--desk-port", type=click.IntRange(0, 65535), default=0, help="0 picks a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--name", "names", multiple=True, help="Additional host name in the API's certificate (repeatable).")
@click.option(
    "--account", "accounts", multiple=True, metavar="LOGIN:PASSWORD-FILE", help="Register a login (repeatable)."
)
@click.option(
    "--fault", "faults", multiple=True, metavar="NAME[=VALUE][@TIMES]", help="Switch a fault on (repeatable)."
)
@click.option("--tls", type=click.Choice(["1.2", "1.3", "both"]), default="both", show_default=True)
@click.option("--seed", default="stand-in", show_default=True, help="Seed of the generated fleets.")
def serve(
    directory: Path,
    api_port: int,
    desk_port: int,
    host: str,
    names: tuple[str, ...],
    accounts: tuple[str, ...],
    faults: tuple[str, ...],
    tls: str,
    seed: str,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    \b
    Examples:
      partner-standin serve --dir /tmp/partner
      partner-standin serve --dir /tmp/partner --tls 1.2 --fault desk-delay=1m
    """
    import signal

    from partner_standin.server import InUseError, Standin

    ending = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # pending until `sigwait`: nothing is left half-started
    try:
        standin = Standin(
            directory,
            accounts=dict(_account(text) for text in accounts),
            faults=(*faults, *(() if tls == "both" else (f"tls-version={tls}",))),
            host=host,
            names=names,
            api_port=api_port,
            desk_port=desk_port,
            seed=seed,
        )
        with standin:
            click.echo(f"ready: api {standin.api_url} desk {standin.desk_url}")
            signal.sigwait(ending)
    except (ValueError, InUseError, OSError) as error:
        raise click.ClickException(str(error)) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@main.group()
def account() -> None:
    """Register logins and change passwords, of a running stand-in or in its directory."""


@account.command("add")
@click.argument("login")
@click.option("--dir", "directory", type=DIRECTORY, required=True)
@click.option("--password-file", type=click.File("r"), required=True, help="- reads standard input.")
def account_add(login: str, directory: Path, password_file: IO[str]) -> None:
    """Register LOGIN; its first application gets a client_id.

    \b
    Example:
      partner-standin account add --dir /tmp/partner MZP0000001 --password-file password.txt
    """
    password = _first_line(password_file)
    desk_url = _running(directory)
    if desk_url:
        _ask(desk_url, "POST", "/desk/accounts", {"login": login, "password": password})
    else:
        _change(directory, lambda registry: registry.add_account(login, password))
    click.echo(f"{login} is registered")


@account.command("password")
@click.argument("login")
@click.option("--dir", "directory", type=DIRECTORY, required=True)
@click.option("--password-file", type=click.File("r"), required=True, help="- reads standard input.")
@click.option("--overlap", is_flag=True, help="Keep the old password valid until the next change.")
def account_password(login: str, directory: Path, password_file: IO[str], overlap: bool) -> None:
    """Change the password of LOGIN.

    \b
    Example:
      partner-standin account password --dir /tmp/partner MZP0000001 --password-file new.txt --overlap
    """
    password = _first_line(password_file)
    desk_url = _running(directory)
    if desk_url:
        path = f"/desk/accounts/{quote(login, safe='')}/password"
        _ask(desk_url, "PUT", path, {"password": password, "overlap": overlap})
    else:
        _change(directory, lambda registry: registry.set_password(login, password, overlap=overlap))
    click.echo(f"{login} has a new password")


@main.group()
def fault() -> None:
    """Switch faults of a running stand-in; `list` explains them all."""


@fault.command("set")
@click.argument("settings", nargs=-1, required=True, metavar="NAME[=VALUE][@TIMES]...")
@click.option("--desk-url", required=True, help="URL of the desk, as `serve` prints it.")
def fault_set(settings: tuple[str, ...], desk_url: str) -> None:
    """Switch faults on, permanently or for a number of requests.

    \b
    Examples:
      partner-standin fault set --desk-url "$DESK" status-503=1m
      partner-standin fault set --desk-url "$DESK" html-403@2 wrong-ca
    """
    from partner_standin.faults import Faults, UnknownFaultError

    board = Faults()
    try:
        wanted = [board.apply(setting) for setting in settings]
    except UnknownFaultError as error:
        raise click.UsageError(str(error)) from None
    for active in wanted:
        _ask(desk_url, "PUT", f"/desk/faults/{active.name}", {"value": active.value or None, "times": active.times})


@fault.command("clear")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--desk-url", required=True, help="URL of the desk, as `serve` prints it.")
def fault_clear(names: tuple[str, ...], desk_url: str) -> None:
    """Switch faults off; without a NAME, all of them."""
    for path in [f"/desk/faults/{quote(name, safe='')}" for name in names] or ["/desk/faults"]:
        _ask(desk_url, "DELETE", path)


@fault.command("list")
@click.option("--desk-url", help="Mark the faults that are on at this stand-in.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "markdown"]), default="table", show_default=True)
def fault_list(desk_url: str | None, output: str) -> None:
    """List every fault, its effect, and the verdict it should cause."""
    from partner_standin.faults import FAULTS

    on = {one["name"]: one for one in _ask(desk_url, "GET", "/desk/faults")["active"]} if desk_url else {}
    if output == "json":
        import msgspec

        rows = [{**msgspec.to_builtins(row), "on": on.get(row.name)} for row in FAULTS]
        click.echo(json.dumps(rows, indent=2))
        return
    for line in _markdown(FAULTS) if output == "markdown" else _table(FAULTS, on):
        click.echo(line)


def _table(faults: tuple[Fault, ...], on: dict[str, Any]) -> list[str]:
    width = max(len(_usage(fault)) for fault in faults)
    verdicts = max(len(fault.verdict) for fault in faults)
    return [
        "* is on, with its value and the number of hits left",
        *(
            f"{'*' if fault.name in on else ' '} {_usage(fault):{width}}  {fault.verdict:{verdicts}}  {fault.what}"
            + _state(on.get(fault.name))
            for fault in faults
        ),
    ]


def _state(active: dict[str, Any] | None) -> str:
    if active is None:
        return ""
    value, times = active["value"] and f"={active['value']}", active["times"]
    return f"  (on{value}{'' if times is None else f', {times} left'})"


def _markdown(faults: tuple[Fault, ...]) -> list[str]:
    rows = [f"| `{_usage(f).replace('|', chr(92) + '|')}` | {f.what} | {f.verdict} |" for f in faults]
    return ["| fault | what it does | verdict |", "|---|---|---|", *rows]


def _usage(fault: Fault) -> str:
    if not fault.value:
        return fault.name
    return f"{fault.name}={fault.value}" if fault.needed else f"{fault.name}[={fault.value}]"


def _account(text: str) -> tuple[str, str]:
    login, colon, file = text.partition(":")
    if not (login and colon and file):
        raise click.UsageError("--account takes LOGIN:PASSWORD-FILE")
    try:
        with Path(file).open() as opened:
            return login, _first_line(opened)
    except (OSError, UnicodeDecodeError):
        raise click.UsageError(f"the password file of {login} cannot be read") from None


def _first_line(file: IO[str]) -> str:
    try:
        password = file.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        password = ""
    if not password:
        raise click.UsageError("the password file is empty, or not text")
    return password


def _running(directory: Path) -> str | None:
    from partner_standin.remote import running

    return running(directory)


def _ask(desk_url: str, method: str, path: str, document: Any = None) -> Any:
    from partner_standin.remote import RemoteError, ask

    try:
        return ask(desk_url, method, path, document)
    except RemoteError as error:
        raise click.ClickException(str(error)) from None


def _change(directory: Path, change: Any) -> None:
    from partner_standin.registry import UnknownLoginError
    from partner_standin.server import InUseError, closed_registry

    try:
        with closed_registry(directory) as registry:
            change(registry)
    except (InUseError, OSError, ValueError, UnknownLoginError) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
