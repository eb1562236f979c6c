"""The `broker` command. `--version` is answered here, before click is loaded: scripts call it in loops."""

import sys

from broker import __version__


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]) and _wrote(f"broker {__version__}\n"):
        return
    import gc
    import signal

    from broker.signals import ASKING

    gc.set_threshold(50_000)  # the default collects forty times while modules are loaded, none of which is garbage
    # Blocked while modules are loaded; `run` unblocks and handles them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    from broker.cli.main import run

    try:
        sys.exit(run(sys.argv[1:]))
    finally:
        gc.freeze()  # else Python, as it ends, looks for garbage in all that was loaded: 20 ms


def _wrote(text: str) -> bool:
    """Write `text`; return False if standard output is full or closed, which `run` then reports."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, AttributeError):
        return False
    return True


if __name__ == "__main__":
    main()
