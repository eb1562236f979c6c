"""Harden the process before it holds secrets: no core dumps, no access for other processes of the same user, and
no files that others can read.

Python cannot guarantee that no copy of a secret stays in memory (docs/threat-model.md, "Memory"), so the memory is
protected. Nothing here fails a command: `harden` returns what the kernel granted, and `doctor` reports it.
"""

import ctypes
import os
import resource
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # asm-generic/mman.h
_CAP_IPC_LOCK: Final = 14  # linux/capability.h
_EVERY_ID: Final = ["0", "0", str(2**32 - 1)]


class Hardening(Struct, frozen=True):
    """Protections that the kernel granted."""

    no_core: bool  # no core file, of this process or its children
    private: bool  # no core handed to a program either, and /proc/PID/mem closed to others of the same user
    locked: bool  # no page is written to swap


def harden() -> Hardening:
    """Protect this process's memory and files from others. Calling it again changes nothing.

    An executed child inherits the core limit and the umask only.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # lowering a limit is never refused
    no_core = resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
    granted = Hardening(no_core=no_core, private=_private(), locked=_locked())
    os.umask(0o077)  # last: seen from outside, it shows that all is done
    return granted


def _private() -> bool:
    """Forbid core dumps to a program too: for those the kernel ignores the limit above (core(5))."""
    return bool(_libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def _locked() -> bool:
    """Lock pages as they are touched; only without a limit, which would make some later allocation fail."""
    return _unlimited() and bool(_libc().mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def _unlimited() -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):  # an ordinary user's limit is 8 MB, and few may raise it
        return _above_the_limit()
    return True


def _above_the_limit() -> bool:
    """Return whether we have CAP_IPC_LOCK in the initial user namespace; in another one it has no effect."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
        return bool(held >> _CAP_IPC_LOCK & 1) and Path("/proc/self/uid_map").read_text().split() == _EVERY_ID
    except (OSError, ValueError, StopIteration):
        return False


def _libc() -> Any:
    return ctypes.CDLL(None)
