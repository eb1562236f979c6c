"""What every test may rely on."""

from __future__ import annotations

import os
import shutil

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip a test whose peer program is missing on a person's machine; in CI it runs, and fails for want of it."""
    for item in items:
        missing = [name for mark in item.iter_markers("peer") for name in mark.args if not shutil.which(name)]
        if missing and not os.environ.get("CI"):
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}: sh .ci/peers installs it"))
