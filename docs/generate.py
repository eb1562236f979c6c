"""Write docs/reference from the code, so that it cannot say anything else: `make docs`.

With `--check` nothing is written: what differs is printed, and the exit code is 1.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click
import msgspec

from broker import errors
from broker.cli import exits
from broker.cli.main import NOUNS, cli
from broker.config import ACCOUNT_KEYS, FREEZE_KEYS, LOGIN_KEYS, WINDOW_KEYS
from broker.model.finding import Finding
from broker.model.jwt_issuer import JwtIssuer
from broker.model.life_cycle import Phase
from broker.model.role import Role
from broker.model.stage import MOVES, Move, Stage
from broker.people.notice_json import Body
from broker.pki.verification import ACCEPTABLE
from broker.service import openapi
from broker.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
sys.path.insert(0, str(ROOT))  # `tests` is no package that is installed

WIDTH = 100
LOGINS = [
    ("`approle`", "`role_id_file`, `secret_id_file`", "AppRole; the default, and what setup makes"),
    ("`jwt`", "`role`, `jwt_file`", "a JWT that another program renews; mount `jwt`"),
    ("`kubernetes`", "`role`", "the pod's service account, reviewed by Kubernetes; mount `kubernetes`"),
    ("`cert`", "`role`, `certificate_file`, `key_file`", "a TLS client certificate; mount `cert`"),
    ("`token`", "`file`", "a token that another program renews"),
]


def main(arguments: Sequence[str]) -> int:
    """Write every page, or with `--check` print how the pages there differ and return 1 if they do."""
    pages = {
        "stages.md": stages(),
        "life-cycle.md": life_cycle(),
        "settings.md": settings(),
        "exit-codes.md": exit_codes(),
        "cli.md": commands(),
        "findings.md": findings(),
        "clients.md": clients(),
        "webhook.json": json.dumps(msgspec.json.schema(Body), indent=1).splitlines(),
        "openapi.json": json.dumps(openapi.description(), indent=1).splitlines(),
    }
    stale = False
    for name, lines in pages.items():
        path, text = REFERENCE / name, "\n".join(lines) + "\n"
        if arguments == ["--check"]:
            there = path.read_text(encoding="utf-8") if path.exists() else ""
            differences = difflib.unified_diff(
                there.splitlines(), text.splitlines(), str(path), "make docs", lineterm=""
            )
            for line in differences:
                stale = True
                print(line)
        else:
            REFERENCE.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(stale)


def stages() -> Iterator[str]:
    """Yield the stages of a generation and the table of moves between them."""
    yield from _title("Stages and moves", "broker/model/stage.py")
    rows = [(f"`{s.value}`", s.meaning, _mark(yes=s.deliverable), _mark(yes=s.living)) for s in Stage]
    yield from _table(("stage", "meaning", "held by consumers", "its secrets are kept"), rows)
    yield from ("", "What can be done to a generation. Each move is one compare-and-set write of the account.", "")
    yield from _table(
        ("move", "from", "to", "the generation that was current becomes"),
        [
            (
                f"`{move.value}`",
                ", ".join(f"`{s.value}`" for s in Stage if s in row.starts),
                f"`{row.end.value}`",
                f"`{row.displaced.value}`" if row.displaced else "",
            )
            for move, row in MOVES.items()
        ],
    )
    yield from ("", "```mermaid", "stateDiagram-v2", f"    [*] --> {Stage.CANDIDATE.value}")
    for move in Move:
        for start in (s for s in Stage if s in MOVES[move].starts):
            yield f"    {start.value} --> {MOVES[move].end.value}: {move.value}"
        if displaced := MOVES[move].displaced:
            yield f"    {Stage.CURRENT.value} --> {displaced.value}: {move.value} of another"
    yield "```"
    yield ""
    yield "`promote` starts from `previous` only if a roll-back displaced that generation and nothing was promoted"
    yield "since; `roll_back` only if not. `roll_back` starts from a candidate only if that brings an older certificate"
    yield "back."


def life_cycle() -> Iterator[str]:
    """Yield the phases of an account's rotation."""
    yield from _title("Life cycle", "broker/model/life_cycle.py")
    yield "The phases of an account's rotation, the most urgent first. An account is in the first one that applies;"
    yield "`broker rotation status ACCOUNT` says which. If the account's setting in the column “by itself” is `auto`,"
    yield "the scheduler takes the next step. `renewal` is `auto` unless a person sets it, and `promotion` is `manual`."
    yield ""
    yield from _table(
        ("phase", "meaning", "who acts", "by itself", "next command", "state in `broker status`"),
        [
            (
                f"`{phase.value}`",
                phase.row.meaning,
                phase.row.who.value,
                phase.row.automatic and f"`{phase.row.automatic}`",
                phase.row.command and f"`{phase.row.command.format(account='ACCOUNT')}`",
                f"`{phase.state.value}`",
            )
            for phase in Phase
        ],
    )


def settings() -> Iterator[str]:
    """Yield every setting, its variables, default and meaning."""
    yield from _title("Settings", "broker/settings.py")
    yield "A flag wins over the environment, the environment over the file, the file over the default. Where two"
    yield "variables are named, the first wins. `broker config show` says which one did."
    yield ""
    rows = [
        (f"`{s.name}`", ", ".join(f"`{v}`" for v in s.variables), f"`{s.default}`" if s.default else "", s.meaning)
        for s in SETTINGS
    ]
    yield from _table(("setting", "variables", "default", "meaning"), rows)
    yield ""
    yield "The file is TOML and begins with `version = 1`. How a role logs in to Vault stands in `[roles.ROLE]`;"
    yield "`[login]` serves the roles that have none. A token in `BAO_TOKEN` or `VAULT_TOKEN` serves `broker vault"
    yield "setup` and `enrol`, and the roles that the file says nothing of: what it says wins. `broker config show`"
    yield "says how each role logs in, and `broker doctor` warns where a token stands in."
    yield ""
    yield f"Roles: {', '.join(f'`{role.value}`' for role in Role)}."
    yield ""
    yield f"Keys of these tables: {', '.join(f'`{key}`' for key in LOGIN_KEYS)}."
    yield "A login is renewed in time, and made again if it was revoked; its files are read each time."
    yield ""
    yield from _table(("`method`", "keys", "login"), LOGINS)
    yield ""
    yield "One account can have its own way to the partner: `[accounts.NAME]` takes"
    proxies = " and ".join(f"`{key}`" for key in ACCOUNT_KEYS if key.startswith("proxy"))
    yield f"{proxies}, in place of those in `[proxy]`;"
    yield "and `pki`, a role of Vault's PKI (MOUNT/ROLE) that signs its requests."
    yield '`proxy = ""` means none.'
    yield "The proxy is asked by HTTP CONNECT, with HTTP Basic. For another kind of login, put a program such as cntlm"
    yield "before it."
    yield "A login file holds `USER:PASSWORD`, which is never shown, and never reaches the partner."
    yield ""
    yield f"A maintenance window: `[rotation.windows.NAME]` takes {_keys(WINDOW_KEYS)}; a freeze:"
    yield f"`[rotation.freezes.NAME]` takes {_keys(FREEZE_KEYS)}. [Planning](../planning.md) explains both."
    yield ""
    yield f"An issuer of JWTs that callers of the service may show: `[issuers.NAME]` takes {_issuer_keys()}."
    yield "`issuer` (exactly the JWT's `iss`) and `audience` are required. `jwks_url`, `discovery_url` (both https://)"
    yield "or `keys_file` (PEM) says how Vault verifies, and `broker vault setup` makes the mount; `ca_file` verifies"
    yield "the server of the URL. Without one of them, `mount` names a JWT mount that exists, and is left alone."


def _issuer_keys() -> str:
    return _keys(list(JwtIssuer.__struct_fields__))


def _keys(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def exit_codes() -> Iterator[str]:
    """Yield every exit code with the errors it stands for."""
    yield from _title("Exit codes", "broker/cli/exits.py")
    meanings = {error.kind: (error.__doc__ or "").splitlines()[0] for error in _errors() if "kind" in vars(error)}
    meanings[errors.Kind.UNEXPECTED] = "A fault in the broker itself."
    rows = [(0, "", "Done, or nothing to do.")]
    rows += [(code, f"`{kind.value}`", meanings[kind]) for kind, code in exits.CODES.items()]
    rows += [
        (exits.USAGE, "", "The command line cannot be understood."),
        (exits.INTERRUPTED, "", "Interrupted by Ctrl-C."),
        (exits.CONDITION_FAILED, "", "Any error of `broker needs-renewal`, whose 0, 1 and 2 are answers."),
        (exits.BROKEN_PIPE, "", "The reader of the output is gone."),
        (exits.SIGNALLED + signal.SIGTERM, "", "Ended by SIGTERM. Another signal that asks to end: 128 + its number."),
    ]
    yield from _table(("code", "kind", "meaning"), [(f"{n}", *rest) for n, *rest in sorted(rows, key=lambda r: r[0])])
    yield ""
    yield "With `-o json` an error is an object on stdout, always with the same keys: `version` is 1, `success` is"
    yield "false, `code` the kind, `message` what was wrong, `hint` what to do or null, `retryable` whether the same"
    yield "command may succeed later, and `verdict` the partner's, where it was asked, else null."


def commands() -> Iterator[str]:
    """Yield the help of every command."""
    yield from _title("Commands", "broker/cli")
    with _context(cli, "broker") as root:
        yield from _help(cli, root, level=2)
        for noun in NOUNS:
            module = f"broker.cli.{noun.replace('-', '_')}"
            if importlib.util.find_spec(module) and (command := cli.get_command(root, noun)):
                yield from _command(command, noun, root, level=2)


def clients() -> Iterator[str]:
    """Yield which client reads which files of a bundle."""
    catalogue = importlib.import_module("tests.support.clients")
    yield from _title("Formats and clients", "tests/support/clients.py")
    yield "Each “yes” is tested: the client fetches the fleets with these files alone, as `broker bundle get` wrote"
    yield "them, from a server that wants client certificate, login, password and client_id."
    yield "[Using a bundle](../clients.md) says how."
    yield ""
    rows = []
    for client, reason in catalogue.REASONS.items():
        ways = [set(way.files) for way in catalogue.WAYS if way.client == client]
        marks = [_mark(yes=any(way.issuperset(files) for way in ways)) for files in catalogue.COLUMNS.values()]
        rows.append((client, *marks, reason))
    yield from _table(("client", *catalogue.COLUMNS, "not the others, because"), rows)
    yield ""
    yield "The other files are text or JSON, for any program: `username`, `password`, `client_id`, `secrets.json`,"
    yield "`keystore.password` and `manifest.json`. Any program that a shell starts can read the variables of `env`."
    yield "A key store has one entry: the key with its certificate and intermediates."


def _command(command: click.Command, name: str, parent: click.Context, *, level: int) -> Iterator[str]:
    with _context(command, name, parent) as context:
        yield ""
        yield from _help(command, context, level=level)
        if isinstance(command, click.Group):
            for verb in command.list_commands(context):
                under = command.get_command(context, verb)
                if under and not under.hidden:
                    yield from _command(under, verb, context, level=level + 1)


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    """Return the context that `--help` is given; nothing is parsed or run."""
    return command.make_context(name, [], parent, resilient_parsing=True, terminal_width=WIDTH)


def _help(command: click.Command, context: click.Context, *, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {context.command_path}", "", "```text")
    yield from (line.rstrip() for line in command.get_help(context).splitlines())
    yield "```"


def _errors() -> Iterator[type[errors.BrokerError]]:
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, errors.BrokerError):
            yield found


def findings() -> Iterator[str]:
    """Yield the findings about certificates and subjects, by input."""
    yield from _title("Inputs and findings", "tests/pki/inputs.py")
    yield "An error refuses. A warning or note is printed, and the certificate is taken. The last column is the answer"
    yield "of a real OpenSSL server that trusts the root alone, as `tests/pki/test_openssl_server.py` asks it; empty if"
    yield "it cannot be asked: another key, or a certificate that no client loads."
    yield ""
    yield "`broker cert import --accept CODE --reason TEXT` takes a certificate despite an acceptable error. That is"
    yield "evidence, for this certificate and this finding."
    yield from ("", "## Certificates in a reply", "")
    rows = []
    given = importlib.import_module("tests.pki.inputs")
    for name, one in given.INPUTS.items():
        server = {True: "accepts", False: "refuses", None: ""}[one.accepted]
        rows.append((name, _said(given.findings_of(one.chain(), (one.trusted or given.root)())), server))
    yield from _table(("input", "findings", "OpenSSL server"), rows)
    yield from ("", "## Subjects of requests", "", "Under the profile `stellantis`, for the login `MZP0012345`.", "")
    shown = [(f"{name}={value[:24]!r}", _said(given.linted(name, value))) for name, value in given.SUBJECTS]
    yield from _table(("attribute", "findings"), shown)


def _said(found: Iterable[Finding]) -> str:
    marks = dict.fromkeys(ACCEPTABLE, " (acceptable)")
    lines = (f"{f.severity.value} `{f.code}`: {f.message}{marks.get(f.code, '')}" for f in found)
    return "<br>".join(lines) or "none"


def _title(title: str, source: str) -> tuple[str, ...]:
    return (f"# {title}", "", f"<!-- Written by `make docs` from {source}: change that, not this. -->", "")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(heads)
    yield _row(["---"] * len(heads))
    yield from (_row(row) for row in rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _mark(*, yes: bool) -> str:
    return "yes" if yes else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
