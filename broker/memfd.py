"""Sealed files in memory (memfd_create(2)), for this process and those that inherit them."""

import fcntl
import os
from typing import Final

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(content: bytes, *, inherited: bool = False) -> int:
    """Return the descriptor of a new file with `content`, which nobody can change; another program may inherit it."""
    descriptor = os.memfd_create("credential", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        os.set_inheritable(descriptor, inherited)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def path_of(descriptor: int) -> str:
    """Return the path of a file in memory."""
    return f"/proc/self/fd/{descriptor}"
