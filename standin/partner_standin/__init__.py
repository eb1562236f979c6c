"""The partner stand-in: a CSR desk with its own CA, and a Fleet Owner API over real mTLS, with faults to switch on.

It imports nothing of the broker, so that the two cannot share a mistake. `partner-standin serve` runs it as a process,
`Standin` inside a test.
"""

from __future__ import annotations

from partner_standin.server import Standin

__all__ = ["Standin"]

__version__ = "0.1.0"
