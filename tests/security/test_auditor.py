"""The auditor sees what it is there for: each violation is planted, in a log, a policy, an account or its evidence."""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from broker.copies import replace
from broker.model.account import Account
from broker.model.chain import Entry
from broker.model.changes import moving, trying
from broker.model.clock import Stamp
from broker.model.history import Event
from broker.model.stage import Move
from broker.model.verdict import CanaryResult, Verdict
from broker.vault.documents import encoded
from tests.support.accounts import (
    BY,
    later,
    with_answer,
    with_candidate,
    with_new_password,
    with_open_request,
)
from tests.support.auditor import Request, audited, grants_in, main, outside, requests_in, unused
from tests.support.matrix import CONSUMER, Matrix

MATRIX: Final = Matrix.load()
POLICIES: Final = Path(__file__).parents[2] / "policies"
MOUNT: Final = "cb"


def tried(account: Account, generation: int, verdict: str = "ok") -> Account:
    """Return `account` after a canary of `generation`."""
    number = account.tries[-1].number + 1 if account.tries else 1
    parts = account.parts_of(account.generation(generation))
    sent = trying.canary_sent(account, generation, parts, f"id-{number}", Stamp(later(hours=number), BY))
    return trying.canary_answered(sent, number, CanaryResult(Verdict(verdict)), Stamp(later(hours=number), BY))


def promoted(account: Account, generation: int) -> Account:
    return moving.moved(tried(account, generation), generation, Move.PROMOTE, Stamp(later(days=1), BY))


def rotated() -> Account:
    """Return an account with two certificates and two passwords behind it, one roll-back, and an open request."""
    account = promoted(with_candidate(), 1)
    account = promoted(with_answer(account), 2)
    account = moving.moved(tried(account, 1), 1, Move.ROLL_BACK, Stamp(later(days=2), BY))
    account = promoted(with_new_password(account), 3)
    return with_open_request(moving.moved(account, 1, Move.RETIRE, Stamp(later(days=3), BY)))


def stored(account: Account) -> dict[str, Any]:
    """Return what Vault would hold once `account`, never settled before, is settled."""
    documents = {f"accounts/{account.name}": encoded(replace(account, outbox=()))}
    for entry in account.outbox:
        documents[f"evidence/accounts/{account.name}/{entry.number:08d}"] = encoded(entry)
    return dict(json.loads(msgspec.json.encode(documents)))


def rehashed(documents: dict[str, Any], change: Callable[[list[Any]], None]) -> dict[str, Any]:
    """Return the documents with the chain changed and every hash made to fit, as the best of forgers would."""
    changed = copy.deepcopy(documents)
    account = changed["accounts/mzp-1"]["value"]
    raw = [changed.pop(path)["value"] for path in sorted(changed) if path.startswith("evidence/accounts/")]
    change(raw)
    before = "0" * 64
    for number, value in enumerate(raw, 1):
        entry = replace(msgspec.convert(value, Entry), number=number, before=before)
        before = entry.expected_hash
        changed[f"evidence/accounts/mzp-1/{number:08d}"] = json.loads(
            msgspec.json.encode(encoded(replace(entry, hash=before)))
        )
    account["head"] = {"number": len(raw), "hash": before}
    return changed


def assert_seen(documents: dict[str, Any], *words: str) -> None:
    found = list(audited(documents))
    for word in words:
        assert any(word in finding for finding in found), found


def test_account_within_the_rules_is_whole() -> None:
    assert list(audited(stored(rotated()))) == []


def test_outbox_counts_as_evidence() -> None:
    account = rotated()
    late = {"accounts/mzp-1": encoded(account)}
    assert list(audited(json.loads(msgspec.json.encode(late)))) == []


def edit(*path: str | int, to: object) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (edit("generations", 0, "stage", to="previous"), "stages"),
        (edit("generations", 1, "stage", to="current"), "stages"),
        (edit("generations", 2, "parts", "secrets", "password", to=1), "parts"),
        (edit("generations", 2, "parts", "key", to="kv:9"), "parts"),
        (edit("generations", 2, "parts", "trust", to="0" * 64), "parts"),
        (edit("requests", 0, "closed", to=None), "requests"),
        (edit("requests", 2, "closed", to="cancelled"), "requests"),
        (edit("requests", 2, "spki", to="0" * 64), "keys"),
        (edit("secrets", "password", to=1), "password"),
        (edit("login", to="MZP2"), "login"),
        (edit("base_url", to="https://elsewhere.test"), "login"),
        (edit("applications", 0, "client_id", to="id-other"), "applications"),
        (edit("tries", 0, "verdict", to="login_rejected"), "tries"),
        (edit("head", "number", to=3), "stands at entry"),
        (edit("generations", to=[]), "stages"),
    ],
)
def test_a_document_edited_past_the_rules(change: Callable[[Any], None], word: str) -> None:
    documents = stored(rotated())
    change(documents["accounts/mzp-1"]["value"])
    assert_seen(documents, word)


@pytest.mark.parametrize("number", range(1, 28))
def test_a_missing_entry(number: int) -> None:
    documents = stored(rotated())
    del documents[f"evidence/accounts/mzp-1/{number:08d}"]
    assert_seen(documents, "")


def test_every_entry_was_taken_away() -> None:
    assert len(stored(rotated())) - 1 == 27


def test_an_edited_entry() -> None:
    documents = stored(rotated())
    documents["evidence/accounts/mzp-1/00000002"]["value"]["by"] = "somebody else"
    assert_seen(documents, "was edited")


def test_evidence_of_an_account_that_is_gone() -> None:
    documents = stored(rotated())
    del documents["accounts/mzp-1"]
    assert_seen(documents, "no account")


def without(what: Event, *, last: bool = False) -> Callable[[list[Any]], None]:
    def change(raw: list[Any]) -> None:
        places = [place for place, entry in enumerate(raw) if entry["what"] == what.value]
        del raw[places[-1 if last else 0]]

    return change


def with_facts(what: Event, **facts: object) -> Callable[[list[Any]], None]:
    def change(raw: list[Any]) -> None:
        next(entry for entry in reversed(raw) if entry["what"] == what.value)["facts"].update(facts)

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (without(Event.CANARY_ANSWERED), "no canary"),
        (without(Event.CANARY_ANSWERED, last=True), "no canary"),
        (without(Event.CANARY_SENT), "speaks of what is not there"),
        (without(Event.REQUEST_DRAFTED), "speaks of what is not there"),
        (without(Event.REQUEST_CLOSED), "no answered request"),
        (without(Event.PASSWORD_SET), "never set"),
        (without(Event.CA_ACCEPTED), "was not accepted"),
        (without(Event.TRUST_SET), "was not accepted"),
        (without(Event.GENERATION_BORN), "not there"),
        (without(Event.GENERATION_MOVED), "nothing is current to lay it over"),
        (without(Event.APPLICATION_SET), "applications"),
        (with_facts(Event.CANARY_ANSWERED, verdict="login_rejected"), "no canary"),
        (with_facts(Event.CANARY_ANSWERED, generation=1), "was not sent"),
        (with_facts(Event.CANARY_SENT, attempt=9), "counted"),
        (with_facts(Event.GENERATION_MOVED, generation=3), "which was current"),
        (with_facts(Event.GENERATION_MOVED, move="reject", stage="rejected"), "which was previous"),
        (with_facts(Event.CANARY_SENT, password=1), "what was sent is not"),
        (with_facts(Event.GENERATION_BORN, key="kv:7"), "no answered request"),
        (with_facts(Event.REQUEST_DRAFTED, key="kv:1"), "keys"),
        (with_facts(Event.PASSWORD_SET, password=1), "does not rise"),
    ],
)
def test_history_against_the_rules_is_found(change: Callable[[list[Any]], None], word: str) -> None:
    assert_seen(rehashed(stored(rotated()), change), word)


def test_canary_before_birth_proves_nothing() -> None:
    account = promoted(with_answer(tried(with_candidate(), 1)), 1)
    assert list(audited(stored(account))) == []
    cheated = moving.moved(account, 2, Move.REJECT, Stamp(later(days=2), BY))
    cheated = with_answer(tried(cheated, 1))
    cheated = moving.moved(cheated, 3, Move.PROMOTE, Stamp(later(days=3), BY))  # the model alone does not ask
    assert_seen(stored(cheated), "no canary of generation 3")


def test_going_back_untried_takes_a_reason() -> None:
    account = promoted(with_answer(promoted(with_candidate(), 1)), 2)
    with_reason = moving.moved(account, 1, Move.ROLL_BACK, Stamp(later(days=4), BY), reason="partner is down")
    assert list(audited(stored(with_reason))) == []
    tried_again = moving.moved(tried(account, 1), 1, Move.ROLL_BACK, Stamp(later(days=4), BY))
    assert list(audited(stored(tried_again))) == []
    untried = moving.moved(account, 1, Move.ROLL_BACK, Stamp(later(days=4), BY))
    assert_seen(stored(untried), "no canary of generation 1")


def issued(lease: str, generation: int, **changes_: Any) -> dict[str, Any]:
    facts = {
        "account": "mzp-1", "application": "fleet", "generation": generation, "kind": "direct", "consumer": "e-1",
        "lease": lease, "expires": later(days=30).isoformat(),
    }  # fmt: skip
    entry = {"chain": "issued/h", "at": later(days=1).isoformat(), "what": "bundle-issued", "facts": facts}
    return {"value": {**entry, **changes_, "facts": {**facts, **changes_.get("facts", {})}}}


@pytest.mark.parametrize(
    ("others", "seen"),
    [
        ((), True),
        ((issued("l-1", 1, what="bundle-returned"),), False),
        ((issued("l-1", 1, what="bundle-returned", at=later(days=9).isoformat()),), True),
        ((issued("l-2", 3, at=later(days=2).isoformat()),), False),  # the same place holds a newer one
        ((issued("l-2", 3, at=later(days=2).isoformat(), facts={"consumer": "e-2"}),), True),
    ],
)
def test_retired_while_leased_is_found(others: tuple[dict[str, Any], ...], seen: bool) -> None:
    documents = stored(rotated())
    for number, entry in enumerate((issued("l-1", 1), *others), 1):
        documents[f"evidence/issued/h/{number:08d}"] = entry
    found = list(audited(documents))
    assert any("while e-1 held it" in finding for finding in found) is seen


# requests


def test_a_role_within_its_row_is_no_finding() -> None:
    made = [
        Request("rotator", "create", "cb/data/keys/mzp-1/1", True),
        Request("rotator", "update", "cb/data/keys/mzp-1/1", False),  # it may create, and something was there
        Request("auditor", "list", "cb/metadata/accounts/", True),
        Request("canary", "update", "auth/token/revoke-self", True),
        Request("consumer-fleet", "read", "auth/token/lookup-self", True),
        Request("", "update", "sys/mounts/cb", True),
        Request("", "update", "cb/config", True),  # setting up
    ]
    assert list(outside(made, MATRIX, MOUNT)) == []


@pytest.mark.parametrize(
    "request_",
    [
        Request("operator", "read", "cb/data/keys/mzp-1/1", True),
        Request("operator", "read", "cb/data/keys/mzp-1/1", False),
        Request("operator", "read", "cb/data/passwords/mzp-1/1", False),
        Request("rotator", "update", "cb/data/keys/mzp-1/1", True),
        Request("rotator", "update", "other/data/accounts/mzp-1", False),
        Request("rotator", "create", "cb/data/keys/mzp-1/1/deeper", True),
        Request("auditor", "update", "cb/data/accounts/mzp-1", False),
        Request("auditor", "read", "cb/data/accounts/", True),
        Request("server", "list", "cb/metadata/keys/", False),
        Request("server", "update", "sys/policies/acl/x", False),
        Request("server", "delete", "cb/metadata/evidence/issued/h/00000001", False),
        Request("consumer-fleet", "read", "cb/data/accounts/mzp-1", False),
        Request("consumer-fleet", "update", "cb-issue/a/b/c/d/direct", False),
        Request("rotator+server", "read", "cb/data/accounts/mzp-1", True),
        Request("", "update", "cb/data/accounts/mzp-1", True),
    ],
)
def test_a_request_outside_the_row(request_: Request) -> None:
    assert list(outside([request_], MATRIX, MOUNT))


def test_a_grant_that_no_request_needed(tmp_path: Path) -> None:
    (tmp_path / "auditor.hcl").write_text(
        '# a comment\npath "${mount}/data/accounts/+" { capabilities = ["read", "update"] }\n'
    )
    (tmp_path / "base.hcl").write_text('path "auth/token/lookup-self" { capabilities = ["read"] }\n')
    grants = list(grants_in(tmp_path, MOUNT))
    requests = [
        Request("auditor", "read", "cb/data/accounts/x", True),
        Request("auditor", "update", "cb/data/accounts/x", False),
        Request("server", "update", "cb/data/accounts/x", True),
        Request("server", "read", "auth/token/lookup-self", True),
    ]
    assert list(unused(grants, requests)) == ["never used: auditor may update cb/data/accounts/+"]
    (tmp_path / "canary.hcl").write_text('path "x" {\n  capabilities = ["read"]\n}\n')
    with pytest.raises(ValueError, match=r"canary\.hcl"):
        list(grants_in(tmp_path, MOUNT))


def test_policies_grant_what_the_matrix_says() -> None:
    by_policy = {(g.role if g.role != "base" else "everyone", g.operation, g.path) for g in grants_in(POLICIES, MOUNT)}
    by_matrix = {
        (role, operation, path)
        for row in MATRIX.rows
        for role in row.roles.keys() - {CONSUMER}  # whose policy is a template
        for operation, path in replace(row, roles={role: row.roles[role]}).rights(role, MOUNT)
    }
    assert by_policy <= by_matrix
    for role, operation, path in by_matrix - by_policy:  # a row for one path that a wider one of the policy covers
        assert any(
            (role, operation) == wider[:2] and re.fullmatch(re.escape(wider[2]).replace(r"\+", "[^/]+"), path)
            for wider in by_policy
        ), f"{role} may not {operation} {path}"


def logged(policies: list[str], operation: str, path: str, error: str = "", kind: str = "response") -> str:
    request = {"operation": operation, "path": path}
    return json.dumps({"type": kind, "auth": {"policies": policies}, "request": request, "error": error})


def test_the_log_is_read_as_vault_writes_it() -> None:
    log = [
        logged(["cb/base", "cb/server"], "read", "cb/data/accounts/x", kind="request"),
        logged(["cb/base", "cb/server"], "read", "cb/data/accounts/x"),
        logged(["cb/base", "cb/server"], "update", "auth/cb/login"),
        logged(["cb/base", "cb/operator"], "update", "cb/data/keys/x/1", "1 error occurred:\n\t* permission denied"),
        logged(["default", "cb/consumer-fleet"], "read", "cb/data/keys/x/1", "permission denied"),
        logged(["cb/base", "cb/operator", "cb/rotator"], "read", "cb/data/accounts/x"),
        logged(["cb-2/server"], "read", "cb-2/data/accounts/x"),
        json.dumps({"type": "response", "request": {"operation": "read", "path": "sys/health"}}),
    ]
    assert list(requests_in(log, "cb", MATRIX.roles)) == [
        Request("server", "read", "cb/data/accounts/x", True),
        Request("operator", "update", "cb/data/keys/x/1", False),
        Request("consumer-fleet", "read", "cb/data/keys/x/1", False),
        Request("operator+rotator", "read", "cb/data/accounts/x", True),
        Request("", "read", "cb-2/data/accounts/x", True),
    ]


def test_the_program_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, documents = tmp_path / "audit.log", tmp_path / "documents.json"
    log.write_text(logged(["cb/base", "cb/server"], "read", "cb/data/accounts/x"))
    documents.write_text(json.dumps(stored(rotated())))
    arguments = ["--mount", "cb", "--log", str(log), "--documents", str(documents)]
    assert main(arguments) == 0
    assert main([*arguments, "--grants", str(POLICIES)]) == 1
    assert "never used: rotator may create cb/data/keys/+/+" in capsys.readouterr().out
    assert main(["--mount", "another", *arguments[2:]]) == 1
    log.write_text(logged(["cb/base", "cb/auditor"], "read", "cb/data/keys/x/1"))
    assert main(arguments) == 1
    assert capsys.readouterr().out.endswith("outside its row: auditor: read cb/data/keys/x/1\n")


def test_auditor_shares_no_broker_code() -> None:
    for name in ("auditor", "independent_replay", "matrix"):
        tree = ast.parse((Path(__file__).parents[1] / "support" / f"{name}.py").read_text())
        nodes = list(ast.walk(tree))
        imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        imported |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        foreign = {m for m in imported if m.partition(".")[0] not in sys.stdlib_module_names}
        assert foreign <= {"tests.support.matrix", "tests.support.independent_replay"}, name
