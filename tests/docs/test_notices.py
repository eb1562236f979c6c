"""docs/notices.md: its commands are typed, each how-to in the state that it is about."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from broker.model.secret import Secret
from broker.people.webhook import signature
from broker.vault import layout
from tests.support.sources import ROOT
from tests.support.system import LOGIN, System
from tests.support.webhook_server import WebhookServer, webhook_server

TEXT: Final = (ROOT / "docs" / "notices.md").read_text(encoding="utf-8")
HOW_TOS: Final = dict(re.findall(r"^<!-- (.+?) -->\n```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
KEY: Final = "of-the-webhook-and-secret"


def typed(system: System, block: str) -> str:
    """Run the lines of a block as they are printed; return what they said."""
    ended = [system.ok(*shlex.split(line)[1:]) for line in block.splitlines()]
    return "".join(one.out + one.err for one in ended)


def expire(system: System) -> None:
    """Let the current certificate have ended yesterday, in the account's document."""
    path = layout.account("acme")
    stored = system.vault.admin.read(path)
    document: dict[str, Any] = json.loads(json.dumps(stored.data))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    document["value"]["certificates"][0]["not_after"] = yesterday.isoformat().replace("+00:00", "Z")
    system.vault.admin.write(path, document, replacing=stored.version)


def a_candidate_waits(system: System) -> None:
    system.renewed()
    expire(system)
    assert "EXPIRED" in typed(system, next(block for block in BLOCKS if "csr show" in block).splitlines()[0])


def nothing_is_ready(system: System) -> None:
    system.promoted()
    expire(system)


def the_password_changed_too(system: System) -> None:
    system.renewed()
    system.partner.registry.set_password(LOGIN, "the-new-password", overlap=False)
    (system.home / "new-password.txt").write_text("the-new-password")
    assert system.run("rotation", "promote", "acme").code == 6


def a_request_is_open(system: System) -> None:
    system.promoted()
    system.ok("csr", "new", "acme")


def an_application_holds_the_old(system: System) -> None:
    system.renewed()
    token = system.consumer("acme/reporting")
    system.ok("bundle", "get", "acme/reporting", "--consumer-token-file", str(token), "--to", "bundle")
    system.ok("rotation", "promote", "acme")
    assert system.run("rotation", "retire", "acme", "--generation", "1").code == 7


STARTS: Final[dict[str, tuple[Callable[[System], None], str]]] = {
    "expired: a candidate waits": (a_candidate_waits, "generation 2 of acme is current"),
    "expired: nothing is ready": (nothing_is_ready, "signing request"),
    "the password changed too: generation 2 has the certificate, generation 3 the password": (
        the_password_changed_too,
        "is current",
    ),
    "the contact is on holiday": (a_request_is_open, "acme.eml"),
    "one application holds up the retirement": (an_application_holds_the_old, "reader"),
    "the host is gone": (an_application_holds_the_old, "generation 1 of acme is retired"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how_to", STARTS)
def test_how_tos_work_as_printed(system: System, how_to: str) -> None:
    begin, said = STARTS[how_to]
    begin(system)
    assert said in typed(system, HOW_TOS[how_to])


def test_every_how_to_is_typed() -> None:
    assert set(HOW_TOS) == set(STARTS)


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[WebhookServer]:
    with webhook_server(tmp_path) as server:
        yield server


@pytest.mark.slow
def test_a_team_and_a_webhook_are_set_up(system: System, webhook: WebhookServer) -> None:
    """Without a mail server: a test of the team then fails, and the webhook still gets its own."""
    system.added()
    (system.home / "webhook-key.txt").write_text(KEY)
    with (system.home / "broker.toml").open("a") as file:
        lines = [f'webhook = "{webhook.url}"', f'webhook_ca_file = "{webhook.ca_file}"', "webhook_loopback = true"]
        file.write("\n".join(["", "[notify]", *lines, ""]))
    first = next(block for block in BLOCKS if "notify test --all" in block).splitlines()
    typed(system, "\n".join(first[:2]))
    typed(system, next(block for block in BLOCKS if "mail set webhook" in block))
    [call] = webhook.calls
    assert json.loads(call.body)["kind"] == "test"
    ended = system.run(*shlex.split(first[2])[1:])
    assert ended.code == 2
    assert "no SMTP server is configured" in ended.err
    assert len(webhook.calls) == 2
    assert "webhook" in typed(system, first[3])


def test_the_page_s_python_verifies_a_call() -> None:
    space: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)[0], space)
    now = datetime.now(UTC)
    header = signature(Secret(KEY), b'{"a":1}', now)
    assert space["genuine"](header, b'{"a":1}', KEY.encode())
    assert not space["genuine"](header, b'{"a":2}', KEY.encode())
    assert not space["genuine"](signature(Secret(KEY), b"", now - timedelta(minutes=6)), b"", KEY.encode())
