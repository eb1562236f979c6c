"""`broker init`: write a configuration, from answers to a few questions."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import click

from broker.cli.options import output_file_option, read_input, require_free_output, write_output
from broker.cli.output import note, show_done
from broker.cli.start import Start
from broker.config import checked_address, checked_mount
from broker.embedded.server import find_binary
from broker.errors import BrokerError, InputError
from broker.model.role import Role

_WHERE: Final = "Where is Vault? An address, or embedded for one on this machine"
_CA_FILE: Final = "File with the CA certificates of Vault, if it is not a public CA"


@click.command(
    "init", epilog="Example: broker init --vault embedded   or   broker init --vault https://vault.example:8200"
)
@click.option("--vault", default="", metavar="ADDRESS", help='Vault\'s address, or "embedded" for one on this machine.')
@click.option("--ca-file", default="", metavar="FILE", help="CA certificates that verify Vault's.")
@click.option("--namespace", default="", help="Namespace of Vault to work in.")
@click.option("--mount", default="", help="Mount path of the KV v2 engine.")
@click.option(
    "--roles-directory", default="", metavar="DIR", help="Directory of the roles' role_id and secret_id files."
)
@output_file_option("--out", "File for the configuration.  [default: broker.toml]", default="broker.toml")
@click.option("--force", is_flag=True, help="Replace an existing configuration.")
@click.pass_obj
def command(
    start: Start, vault: str, ca_file: str, namespace: str, mount: str, roles_directory: str, out: str, force: bool
) -> None:
    """Write a configuration. Prompts for what is not given as an option; without a terminal, uses defaults."""
    require_free_output(out, "the configuration")
    kept = out != "-" and Path(out).exists() and not force
    if kept and sys.stdin.isatty():  # before the questions
        raise _there_already(out)
    vault = _answered(vault, _WHERE, _default(), _checked_address)
    mount = _answered(mount, "Mount of the KV v2 engine", "credential-broker", checked_mount)
    if vault == "embedded":
        text = _embedded(start.config["embedded.directory"], mount)
    else:
        ca_file = _answered(ca_file, _CA_FILE, "", partial(_checked_file, beside=Path(out).parent))
        folder = _answered(roles_directory, "Directory of the roles' role_id and secret_id files", "roles", str)
        text = _remote(folder, address=vault, mount=mount, namespace=namespace, ca_file=ca_file)
    if kept and read_input(out) != text.encode():  # else it is the same command, killed after it had written
        raise _there_already(out)
    write_output(out, text.encode())
    following = "broker vault start" if vault == "embedded" else "VAULT_TOKEN=… broker vault setup --dry-run"
    done = f"{'configuration' if out == '-' else out} written"
    show_done(done, file=out)
    note(f"next: {following}, then broker doctor")


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
