"""`broker account import`: bring in an account that exists, from wherever its set lies today."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec import Struct

from broker.cli.cert import accept_finding_option, read_cas
from broker.cli.new_account import address_of, checked_login
from broker.cli.options import (
    accept_ca_option,
    account_argument,
    confirm,
    files_in,
    profile_option,
    read_input,
    read_password,
    require_one_reader,
    the_reason,
    typed_command,
)
from broker.cli.output import note, show_findings, show_table, wants_json, wrote_json
from broker.cli.start import Start
from broker.errors import InputError
from broker.model.account import Account
from broker.model.authentication import PASSWORD
from broker.model.names import AccountName, checked_name
from broker.model.redactor import Redactor
from broker.model.role import Role
from broker.model.secret import Secret
from broker.pki.gathered import Gathered, Piece, gather
from broker.pki.material import PassphraseError
from broker.rotation.importing import Importing, ImportPlan, Wishes, login_in, subject_in
from broker.rotation.receive import ImportOptions
from broker.telemetry import log

if TYPE_CHECKING:
    from broker.compose.graph import Broker
    from broker.compose.importing import Imported

_MOST_FILES: Final = 64  # of a directory
_STDIN: Final = "standard input"
_WANTED: Final = ("tls.key", "tls.crt", "ca.crt", "login", "username", "password", "client_id")


class _Asked(Struct, frozen=True):
    """The options of one import, as they are typed."""

    files: Sequence[str]
    key: Sequence[str]
    csr: Sequence[str]
    from_kv: str
    map: Sequence[str]
    passphrase_file: str
    alias: str | None
    profile: str
    environment: str
    base_url: str
    login: str
    password_file: str
    client_id_for: Sequence[str]
    accept_ca: Sequence[str]
    server_ca: str
    held_by: Sequence[str]
    shared_key: bool
    findings: Sequence[str]
    reason: str
    dry_run: bool
    yes: bool


@account_argument
@click.argument("files", nargs=-1, metavar="[FILE|DIRECTORY|-]...")
@click.option("--key", multiple=True, metavar="FILE", help="A file with the private key (repeatable).")
@click.option("--csr", multiple=True, metavar="FILE", help="A signing request made by hand, with --key (repeatable).")
@click.option("--from-kv", default="", metavar="MOUNT/PATH", help="A secret in Vault's KV, read with your own token.")
@click.option(
    "--map",
    multiple=True,
    metavar="NAME=FIELD",
    help=f"Field of a KV secret, JSON or Kubernetes Secret with {', '.join(_WANTED)}; base64:FIELD decodes it "
    "(repeatable).",
)
@click.option("--passphrase-file", default="", metavar="PATH|-", help="Passphrase of the key.  [default: asked for]")
@click.option("--alias", help="Entry of a key store with several.")
@profile_option
@click.option("--environment", default="production", show_default=True, help="Environment, if the account is new.")
@click.option("--base-url", default="", help="Address of the API, if the account is new and the profile has none.")
@click.option("--login", default="", help="Login at the partner.  [default: the certificate's common name]")
@click.option("--password-file", default="", metavar="PATH|-", help="The partner's password.  [default: asked for]")
@click.option(
    "--client-id-for",
    multiple=True,
    metavar="APPLICATION[=ID]",
    help="Add an application, with this client_id or the one that is found (repeatable).",
)
@accept_ca_option
@click.option("--server-ca", default="", metavar="FILE", help="CAs that verify the partner's server, if others.")
@click.option("--held-by", multiple=True, metavar="TEXT", help="Who has a copy of the key outside (repeatable).")
@accept_finding_option
@click.option("--shared-key", is_flag=True, help="Import a key that another account has (requires --reason).")
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the evidence.")
@click.option("--dry-run", is_flag=True, help="Show what was found and what would be done; store nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before a new account is added.")
def import_(start: Start, /, account: AccountName, **options: Any) -> None:
    """Import an account that exists: key, certificate, CA, login, password, client_ids, together or one by one.

    Reads PEM, DER, PKCS#7, PKCS#12 and zip, JSON, a Kubernetes Secret, a directory, or a secret in KV. Shows what it
    found before it stores anything. A new account gets login and subject from the certificate. The certificate is
    verified as a reply is, and becomes current only if the partner accepts the set. The key is marked as known outside.

    The same command again finishes an import that was interrupted, and otherwise changes nothing.
    """
    asked = _Asked(**options)  # by the names of the options above
    wishes, names = _wishes(asked), dict(map(_mapping, asked.map))
    found = gather([*_files(asked), *_of_kv(start, asked, names)], names, _unlocking(asked))
    _require_named(asked, found)
    _add_password_file(asked, found)
    broker = start.broker
    accounts, unread = broker.imports.accounts()
    found.findings += unread
    target = accounts.pop(account, None) or _new(broker, account, asked, found)
    if asked.login not in ("", target.login):
        raise InputError(f"the login of {account} is {target.login}", hint="leave out --login, or name another account")
    profile = broker.profile(target.profile, Role.OPERATOR)
    importing = Importing(target, tuple(accounts.values()), profile, found, wishes)
    _show_found(importing)
    _ask_password(target, found, asked)
    plan = broker.imports.plan(importing)
    _show_plan(plan)
    done = None
    if not asked.dry_run:
        if plan.is_new:
            _confirm(target, asked)
        done = broker.imports.carry_out(plan)
    if not wrote_json(_data(importing, plan, done)):
        _show_end(plan, found, done)


def _wishes(asked: _Asked) -> Wishes:
    why = the_reason(asked.shared_key or bool(asked.findings), asked.reason, "--shared-key or --accept")
    if not all(text.strip() and text.isprintable() for text in asked.held_by):
        raise InputError("--held-by is empty or holds a control character", hint="use a single line")
    pairs = [text.partition("=") for text in asked.client_id_for]
    readers = (*asked.files, *asked.key, *asked.csr, asked.server_ca, asked.password_file, asked.passphrase_file)
    require_one_reader(*readers)
    server = read_cas(asked.server_ca)
    return Wishes(
        alias=asked.alias,
        client_ids={checked_name(name, "application"): value for name, _, value in pairs},
        held_by=tuple(asked.held_by),
        shared_because=why if asked.shared_key else "",
        options=ImportOptions(
            tuple(asked.accept_ca), server, findings=asked.findings, reason=why, typed=typed_command()
        ),
    )


def _mapping(text: str) -> tuple[str, str]:
    name, equals, given = text.partition("=")
    if not equals or not given or name not in _WANTED:
        raise InputError(f"--map {text[:80]!r} is not NAME=FIELD", hint=f"names are {', '.join(_WANTED)}")
    return name, given


# reading


def _files(asked: _Asked) -> Iterator[Piece]:
    for name in (*asked.files, *asked.key, *asked.csr):
        if name == "-":
            yield Piece(_STDIN, read_input(name))
            continue
        inside = _files_in(Path(name)) if os.path.isdir(name) else None  # noqa: PTH112  # no error for a bad name
        for path in [name] if inside is None else inside:
            removal = f"shred -u {shlex.quote(path)}"
            yield Piece(path, read_input(path), os.path.basename(path), removal, stray=inside is not None)  # noqa: PTH119


def _files_in(directory: Path) -> list[str]:
    found = files_in(directory)
    if len(found) > _MOST_FILES:
        raise InputError(f"{directory} has more than {_MOST_FILES} files", hint="name the files of the set")
    return found


def _of_kv(start: Start, asked: _Asked, names: dict[str, str]) -> Iterator[Piece]:
    if not asked.from_kv:
        return
    secret = start.broker.imports.other_secret(asked.from_kv)
    taken = [field.removeprefix("base64:") for field in names.values()] or list(secret.fields)
    data = json.dumps(dict(secret.fields)).encode()
    yield Piece(f"KV {asked.from_kv}", data, removal=secret.removal(taken))


def _unlocking(asked: _Asked) -> Callable[[str], Secret[str]]:
    """Return a function that gives the passphrase of a key: the one in the file, else one that is typed."""

    given = read_input(asked.passphrase_file).decode(errors="surrogateescape") if asked.passphrase_file else None

    def unlock(place: str) -> Secret[str]:
        if given is not None:  # an empty one opens files that were made without
            return Secret(given.removesuffix("\n").removesuffix("\r"))
        if not sys.stdin.isatty():
            raise PassphraseError(
                f"{place} is encrypted, and stdin is not a terminal that could be asked", hint="--passphrase-file PATH"
            )
        return Secret(click.prompt(f"Passphrase of {place}", hide_input=True, default="", show_default=False, err=True))

    return unlock


def _require_named(asked: _Asked, found: Gathered) -> None:
    for option, files, what, places in (
        ("--key", asked.key, "private key", found.places),
        ("--csr", asked.csr, "signing request", [place for _, place in found.requests]),
    ):
        for file in (_STDIN if name == "-" else name for name in files):
            if file not in places:
                raise InputError(f"{file} holds no {what}", hint=f"{option} takes a file with one")
    given = (found.keys, found.certificates, found.requests, found.texts)
    if not any((*given, asked.password_file, asked.client_id_for, asked.held_by)):
        raise InputError("there is nothing to import", hint="name files, a directory, or - for standard input")


def _add_password_file(asked: _Asked, found: Gathered) -> None:
    if asked.password_file:
        password, place = read_password(asked.password_file), "--password-file"
        before, other = found.texts.setdefault(PASSWORD, (password, place))
        if before != password:
            raise InputError(f"{other} and {place} hold different passwords", hint="give one of them")


def _ask_password(target: Account, found: Gathered, asked: _Asked) -> None:
    """Ask for the password if a certificate is imported and the account has none. A dry run needs none."""
    if found.certificates and not target.secrets and PASSWORD not in found.texts:
        later = Secret("?"), "not given yet: --password-file"
        found.texts[PASSWORD] = later if asked.dry_run else (read_password(""), "the terminal")
    if PASSWORD in found.texts:
        log.hide(Redactor([found.texts[PASSWORD][0]]).redact)


def _new(broker: Broker, name: AccountName, asked: _Asked, found: Gathered) -> Account:
    profile = broker.profile(asked.profile, Role.OPERATOR)
    subject = subject_in(found, profile)
    return Account(
        name=name,
        profile=asked.profile,
        environment=asked.environment,
        login=checked_login(profile, asked.login or login_in(found)),
        base_url=address_of(profile, asked.environment, asked.base_url),
        subject=subject,
        created_at=broker.true_clock(),
    )


def _confirm(account: Account, asked: _Asked) -> None:
    """Ask before an account is added: its address and login never change."""
    at = f"{account.profile} {account.environment} at {account.base_url}"
    confirm(f"Add account {account.name}, {at}: login {account.login}, subject {account.subject}?", yes=asked.yes)


# showing


def _show_found(importing: Importing) -> None:
    if not wants_json():
        rows = ((r.what, r.place, r.subject, r.spki[:16], r.validity, "; ".join(r.fits)) for r in importing.rows())
        show_table(["found", "in", "subject", "SPKI", "valid", "fits"], rows)


def _show_plan(plan: ImportPlan) -> None:
    if not wants_json():
        show_findings(plan.findings)
        for number, step in enumerate(plan.steps, start=1):
            note(f"{number}. {step}")


def _show_end(plan: ImportPlan, found: Gathered, done: Imported | None) -> None:
    if done is None:
        note("nothing was stored" if plan.steps else "nothing to do: all of it is stored")
        return
    if not plan.steps:
        note("nothing was left to do")
    if done.generation:
        note(f"generation {done.generation.number} of {done.account.name} is {done.generation.stage.value}")
    for place, removal in found.places.items():
        if removal:
            note(f"{place} still holds secrets. Once nothing reads them there: {removal}")
    for step in _next(done):
        note(f"next: {step}")


def _next(done: Imported) -> Iterator[str]:
    name, request = done.account.name, done.account.open_request
    if done.generation and done.promotion is None and done.generation in done.account.candidates:
        yield f"broker app add {name}/APPLICATION --client-id ID, then: broker rotation promote {name}"
    elif done.generation and any(r.imported and r.key == done.generation.parts.key for r in done.account.requests):
        yield f"broker csr new {name} makes a key that nobody knows outside"
    elif request and not request.submissions:
        day = f"{request.drafted_at:%F}"
        yield f"broker csr submit {name} --sent-at {day}, with the day its CSR was sent; or broker csr submit {name}"


def _data(importing: Importing, plan: ImportPlan, done: Imported | None) -> dict[str, object]:
    generation, places = done.generation if done else None, importing.found.places
    return {
        "account": plan.account.name,
        "login": plan.account.login,
        "subject": str(plan.account.subject),
        "new": plan.is_new,
        "found": tuple(importing.rows()),
        "findings": plan.findings,
        "steps": plan.steps,
        "stored": done is not None,
        "generation": generation.number if generation else None,
        "stage": generation.stage if generation else None,
        "left_behind": [{"place": place, "removal": removal} for place, removal in places.items() if removal],
    }
