"""What the tests of security share."""

from __future__ import annotations

from tests.support.fault_injection import quick_system

__all__ = ["quick_system"]  # the fixture
