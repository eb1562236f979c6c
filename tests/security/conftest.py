"""What the tests of security share."""

from __future__ import annotations

from tests.support.killing import quick_world

__all__ = ["quick_world"]  # the fixture
