"""The `broker` command. `--version` is answered here, before click is loaded: scripts ask for it in loops."""

from __future__ import annotations

import sys

from broker import __version__

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        try:
            print(f"broker {__version__}", flush=True)  # noqa: T201
            return
        except (OSError, AttributeError):
            pass  # full, closed or gone: the long way has words for it
    from broker.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
