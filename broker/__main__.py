"""The `broker` command. `--version` is answered here, before click is loaded: scripts ask for it in loops."""

from __future__ import annotations

import sys

from broker import __version__

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]) and _said(f"broker {__version__}\n"):
        return
    import signal

    from broker.signals import ASKING

    # Kept by the kernel while modules are loaded: `run` then handles them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    from broker.cli.main import run

    sys.exit(run(sys.argv[1:]))


def _said(text: str) -> bool:
    """Write `text`; return False where standard output is full or closed: the long way has words for it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, AttributeError):
        return False
    return True


if __name__ == "__main__":
    main()
