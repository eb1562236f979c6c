"""Run the commands that a text names, as they are printed, in the state that printed it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.support.cli_harness import CliHarness
from tests.support.printed_commands import Printed, printed

# What only the reader knows
_GIVEN: Final = {
    "APPLICATION": "new", "CONSUMER": "newcomer", "TEXT": "asked",
    "ID": "11111111-1111-4111-8111-111111111111", "NUMBER": "1", "NAME": "made",
    "ADDRESS": "desk@partner.example", "MAIL": "desk@partner.example", "DIR": "made", "PATH": "made.pem",
}  # fmt: skip
_FILES: Final = {"partner add": "own.toml", "evidence export": "made.jsonl"}
_CONSENT: Final = {
    "csr cancel": ("--yes",),
    "csr refused": ("--yes",),
    "rotation reject": ("--yes",),
    "account remove": ("--yes",),
    "password set": ("--password-file", "-"),
    "mail set": ("--password-file", "-"),
}
_ADMINISTRATOR: Final = ("vault setup", "vault enrol")
_SERVERS: Final = (  # tests/e2e, tests/embedded, tests/cli/test_mail.py and test_notify.py run them
    *("vault start", "vault stop"),
    *("mail test", "notify test"),
)
_JUDGES: Final = ("doctor", "evidence verify")
_HINT: Final = re.compile(r"(?:hint|next): *(.*)$", re.MULTILINE)


@dataclass
class PrintedRuns:
    """Runs each printed command once for each state."""

    harness: CliHarness
    tried: set[tuple[str, str]] = field(default_factory=set)

    def assert_work(self, text: str, state: str, *, before: Sequence[str] = ()) -> None:
        """Assert that the commands in `text` succeed in `state`, or after the lines `before` in it."""
        for hint in _HINT.findall(text):
            assert hint.strip(), text
            assert not hint.rstrip().endswith((":", " it names")), text
        said = re.sub(r"^Usage: .*$", "", text, flags=re.MULTILINE)
        for found in printed(said):
            key = (f"{state} {before}", str(found))
            if key not in self.tried:
                self.tried.add(key)
                self._assert_works(found, state, before)

    def _assert_works(self, found: Printed, state: str, before: Sequence[str]) -> None:
        name = " ".join(found.words[:2])
        assert not found.fault, f"{found}: {found.fault}"
        assert not any("ACCOUNT" in word.split("/") for word in found.words), f"{found}: the account is known"
        if (
            name in _SERVERS or "acme/nothing" in found.words
        ):  # whether an application exists is told its consumers only
            return
        self.harness.tidy()
        self.harness.put(state)
        for line in (*before, *(["evidence anchor"] if "--key-to" in found.words else ())):  # as its hint says
            self.harness.run(line)
        reply = "second.zip" if state == "again" else "reply.zip"
        words = [self._filled(word.strip("'"), name, reply) for word in found.words]
        variables = dict(pair.split("=", 1) for pair in found.variables)
        if name in _ADMINISTRATOR:  # whose token the text asks for
            variables["VAULT_TOKEN"] = self._administrator()
        line = shlex.join([*words, *_CONSENT.get(name, ())])
        ended = self.harness.run(line, input=b"another\n", env=variables)
        judged = name.startswith(_JUDGES) or "--draft" in found.words  # a draft answers a reply that is refused
        made_up = "login_rejected" in ended.err or "client_rejected" in ended.err  # by the catalogue
        refused = ended.code == 6 and (judged or made_up)
        waits = ended.code == 7 and "is still held by" in ended.err  # right once the consumer has gone
        assert ended.code == 0 or refused or waits, f"{found} in state {state}: {ended.code}\n{ended.err}"

    def _filled(self, word: str, name: str, reply: str) -> str:
        if word == "FILE":
            return _FILES.get(name, reply)
        if word == "SHA256":
            return self.harness.cas["server"]
        if word == "PATH" and name == "vault enrol":
            return "made.token"
        return "/".join(_GIVEN.get(part, part) for part in word.split("/"))

    def _administrator(self) -> str:
        tokens = self.harness.saved.system.vault.admin.tokens
        assert tokens
        return tokens.token().reveal()
