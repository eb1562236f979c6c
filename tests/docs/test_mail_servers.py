"""docs/mail.md on sending: its configurations are read, and its profile is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from broker.compose.mail import Mail
from broker.config import resolve
from broker.model.clock import system_clock
from broker.model.secret import Secret
from broker.partners.catalogue import builtin_source
from broker.partners.document import parse
from broker.people.login import Auth
from broker.settings import IMAP, SMTP
from tests.support.sources import ROOT

TEXT: Final = (ROOT / "docs" / "mail.md").read_text(encoding="utf-8").partition("## Replies")[0]
BLOCKS: Final = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
CONFIGURATIONS: Final = [block for block in BLOCKS if block.startswith("version = 1")]


def never() -> Secret[str]:
    raise AssertionError("no secret is needed to read a configuration")


@pytest.mark.parametrize("block", CONFIGURATIONS)
def test_configurations_are_read(block: str, tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(block)
    mail = Mail(resolve(flags={}, environment={}, file=file), {}, never, system_clock)  # type: ignore[arg-type]
    for name in (SMTP, IMAP):
        if mail.has(name):
            login = mail.login(name)
            assert login
            assert (login.auth is Auth.PASSWORD) is ("auth =" not in block)
            assert mail.server(name).host in block
    if mail.has(SMTP):
        assert mail.mailer().sender == "partner-certificates@company.example"


def test_its_profile_is_valid() -> None:
    (block,) = (block for block in BLOCKS if block.startswith("[submission]"))
    before, _, rest = builtin_source("stellantis").partition("[submission]\n")
    profile = parse(f"{before}{block}\n[renewal]\n{rest.partition('[renewal]')[2]}", "the page")
    assert profile.submission.url.startswith("https://portal")
    assert profile.submission.text().subject.startswith("Demande")
    assert len(profile.submission.checklist) == 3
