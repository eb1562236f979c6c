"""deploy/prometheus: promtool runs the tests of the rules."""

from __future__ import annotations

import subprocess
from typing import Any, Final

import pytest
import yaml

from tests.support.deployed import DEPLOY

RULES: Final = DEPLOY / "prometheus" / "rules.yaml"
TESTS: Final = DEPLOY / "prometheus" / "tests.yaml"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.slow
@pytest.mark.peer("promtool")
@pytest.mark.parametrize("command", [("check", "rules", RULES), ("test", "rules", TESTS)], ids=["check", "test"])
def test_promtool_is_content(command: tuple[Any, ...]) -> None:
    ended = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_is_tested() -> None:
    tested = {
        case["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in rules() if "alert" in rule}
