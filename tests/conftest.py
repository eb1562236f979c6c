"""What every test may rely on."""

from __future__ import annotations

import os
import shutil

import pytest

pytest_plugins = ["tests.support.vault"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose peer program is missing on a person's machine; in CI it fails for want of it."""
    missing = [name for mark in item.iter_markers("peer") for name in mark.args if not shutil.which(name)]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {', '.join(missing)}: sh .ci/peers installs it")
