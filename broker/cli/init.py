"""`broker init`: write a configuration, from answers to a few questions."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import click

from broker.cli.options import output_file_option, read_input, require_free_output, write_output
from broker.cli.output import note, show_done
from broker.cli.start import Start
from broker.embedded.server import find_binary
from broker.errors import BrokerError, InputError
from broker.model.role import Role
from broker.network import service_address
from broker.settings import AUTH_FORM, checked_address, checked_auth, checked_mount

_WHERE: Final = "Where is Vault? An address, or embedded for one on this machine"
_OF_ROLES: Final = ("vault", "namespace", "mount", "roles_directory")
_OF_CONSUMERS: Final = ("addr", "auth")
_CA_FILE: Final = "File with the CA certificates of Vault, if it is not a public CA"


@click.command(
    "init",
    epilog="Example: broker init --vault https://vault.example:8200   or   "
    "broker init --consumer --addr https://broker.example:8443 --auth kubernetes",
)
@click.option("--vault", default="", metavar="ADDRESS", help='Vault\'s address, or "embedded" for one on this machine.')
@click.option("--ca-file", default="", metavar="FILE", help="CA certificates that verify Vault's, or the service's.")
@click.option("--namespace", default="", help="Namespace of Vault to work in.")
@click.option("--mount", default="", help="Mount path of the KV v2 engine.")
@click.option(
    "--roles-directory", default="", metavar="DIR", help="Directory of the roles' role_id and secret_id files."
)
@click.option("--consumer", is_flag=True, help="Write it for an application, which uses the broker service.")
@click.option(
    "--addr", default="", metavar="ADDRESS", help="Address of the service: https://HOST:PORT or unix:///PATH."
)
@click.option("--auth", default="", metavar="IDENTITY", help=f"Identity to show there: {AUTH_FORM}.")
@output_file_option("--out", "File for the configuration.  [default: broker.toml]", default="broker.toml")
@click.option("--force", is_flag=True, help="Replace an existing configuration.")
@click.pass_obj
def command(start: Start, /, out: str, force: bool, consumer: bool, **given: str) -> None:
    """Write a configuration. Prompts for what is not given as an option; without a terminal, uses defaults."""
    require_free_output(out, "the configuration")
    kept = out != "-" and Path(out).exists() and not force
    if kept and sys.stdin.isatty():  # before the questions
        raise _there_already(out)
    _require_fitting(given, consumer=consumer)
    text, steps = (_for_consumer if consumer else _for_roles)(start, out, given)
    if kept and read_input(out) != text.encode():  # else it is the same command, killed after it had written
        raise _there_already(out)
    write_output(out, text.encode())
    show_done(f"{'configuration' if out == '-' else out} written", file=out)
    named = "" if out in ("-", "broker.toml") else f" --config {shlex.quote(out)}"
    note(f"next: {', then '.join(f'{step}{named}' for step in steps)}")


def _require_fitting(given: Mapping[str, str], *, consumer: bool) -> None:
    others = _OF_ROLES if consumer else _OF_CONSUMERS
    for name in (name for name in others if given[name]):
        option = f"--{name.replace('_', '-')}"
        message = f"{option} is not for --consumer" if consumer else f"{option} requires --consumer"
        raise InputError(message, hint="broker init --help shows an example of each")


def _for_consumer(_start: Start, out: str, given: Mapping[str, str]) -> tuple[str, Sequence[str]]:
    """Return the configuration of a host that uses the service, and the next step."""
    address = _answered(given["addr"], "Address of the broker service", "", _checked_service)
    auth = _answered(given["auth"], f"Identity to show there: {AUTH_FORM}", "", _checked_auth)
    ca_file = given["ca_file"]
    if address.startswith("https:"):
        beside = partial(_checked_file, beside=Path(out).parent)
        ca_file = _answered(ca_file, "File with its CA certificates, if it is not a public CA", "", beside)
    why = "# An application's host: bundles come from the broker service, with the identity that `auth` names."
    lines = [why, "version = 1", *_table("service", address=address, auth=auth, ca_file=ca_file), ""]
    return "\n".join(lines), ("broker bundle get ACCOUNT/APPLICATION",)


def _for_roles(start: Start, out: str, given: Mapping[str, str]) -> tuple[str, Sequence[str]]:
    """Return the configuration of a host that works with Vault, and the next steps."""
    vault = _answered(given["vault"], _WHERE, _default(), _checked_address)
    mount = _answered(given["mount"], "Mount of the KV v2 engine", "credential-broker", checked_mount)
    if vault == "embedded":
        text = _embedded(start.config["embedded.directory"], mount)
        return text, ("broker vault start", "broker doctor")
    ca_file = _answered(given["ca_file"], _CA_FILE, "", partial(_checked_file, beside=Path(out).parent))
    folder = _answered(given["roles_directory"], "Directory of the roles' role_id and secret_id files", "roles", str)
    text = _remote(folder, address=vault, mount=mount, namespace=given["namespace"], ca_file=ca_file)
    setup, logins = "VAULT_TOKEN=… broker vault setup", shlex.quote(str(Path(out).parent / folder))
    return text, (f"{setup} --dry-run", f"{setup} --login-dir {logins}", "broker doctor")


def _there_already(out: str) -> InputError:
    return InputError(f"{out} exists already", hint="--force replaces it, --out names another")


def _default() -> str:
    """Return the default address: "embedded" if OpenBao is installed, else "", which is no address."""
    try:
        find_binary()
    except InputError:
        return ""
    return "embedded"


def _answered(given: str, question: str, default: str, checked: Callable[[str], str]) -> str:
    """Return `given`, else the answer to a question, asked again until it passes `checked`."""
    if given or not sys.stdin.isatty():
        return checked(given or default)

    def judged(answer: str) -> str:
        try:
            return checked(answer)
        except BrokerError as error:
            raise click.UsageError(f"{error.message} ({error.hint})" if error.hint else error.message) from None

    answer: str = click.prompt(question, default=default, show_default=bool(default), value_proc=judged, err=True)
    return answer


def _checked_address(text: str) -> str:
    if not text:
        raise InputError("no address of a Vault is given", hint="--vault https://vault.example:8200")
    return text if text == "embedded" else checked_address(text)


def _checked_service(text: str) -> str:
    if not text:
        raise InputError("no address of a broker service is given", hint="--addr https://broker.example:8443")
    return service_address(text)


def _checked_auth(text: str) -> str:
    if not text:
        raise InputError("no identity for the service is given", hint="--auth jwt-file:/run/secrets/broker/token")
    checked_auth(text)
    return text


def _checked_file(name: str, beside: Path) -> str:
    """Return the name of an existing file, relative to the configuration, as it will be read."""
    _quoted(name)
    if name and not (beside / os.path.expanduser(name)).is_file():  # noqa: PTH111  # raises for no "~x"
        raise InputError(f"{name[:80]} is not a file in {beside}", hint="use an absolute path")
    return name


def _embedded(directory: str, mount: str) -> str:
    why = "# A vault on this machine: its unseal key is stored beside its data. For laptops, demos and tests."
    return "\n".join([why, "version = 1", *_table("vault", mount=mount), *_table("embedded", directory=directory), ""])


def _remote(folder: str, **vault: str) -> str:
    lines = ["version = 1", *_table("vault", **vault), ""]
    lines.append("# Each role has its own login. A host needs only the roles that work on it: remove the others.")
    for role in Role:
        files = {f"{name}_file": f"{folder.rstrip('/')}/{role.value}/{name}" for name in ("role_id", "secret_id")}
        lines += _table(f"roles.{role.value}", method="approle", **files)
    return "\n".join([*lines, ""])


def _table(name: str, **values: str) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {_quoted(value)}" for key, value in values.items() if value)]


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise InputError(f"{text[:80]!r} holds a control character", hint="use a single line")
    return json.dumps(text, ensure_ascii=False)  # printable, so a JSON string is a TOML basic string
