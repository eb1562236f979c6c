"""Install a wheel and the pinned requirements, and copy what runs it into a directory: the root of an image.

`collect.py VENV WHEEL ROOT`, in a build container, in the directory that deploy/image/prepare made. ROOT gets the
virtual environment, the interpreter, the standard library, and the shared libraries that these load.
"""

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

USER = "broker:x:65532:65532::/:/nonexistent\n"
UNUSED = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-*", "__pycache__", "*.a")
PIP = ("/pip/bin/python", "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")


def main(environment: Path, wheel: str, root: Path) -> None:
    """Make `root`."""
    subprocess.run([sys.executable, "-m", "venv", "/pip"], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    install = (*PIP, "--python", environment / "bin/python", "install", "-q", "--no-index", "--find-links", ".")
    subprocess.run((*install, "--require-hashes", "-r", "server.txt"), check=True)
    subprocess.run((*install, "--no-deps", wheel), check=True)
    for link in filter(Path.is_symlink, (Path("/lib"), Path("/lib64"))):  # to usr/lib
        (root / link.readlink()).mkdir(parents=True)
        into(root, link).symlink_to(link.readlink())
    interpreter = Path(sys.executable)
    standard = Path(sysconfig.get_path("stdlib"))
    for directory in (environment, standard):
        shutil.copytree(directory, into(root, directory), symlinks=True, ignore=shutil.ignore_patterns(*UNUSED))
        compileall.compile_dir(into(root, directory), quiet=1, stripdir=root)
    for file in (interpreter, interpreter.resolve(), *libraries(root, interpreter.resolve())):
        if not into(root, file).exists():
            shutil.copy2(file, into(root, file), follow_symlinks=file != interpreter)
    for name, text in (("passwd", USER), ("group", "broker:x:65532:\n"), ("nsswitch.conf", "hosts: files dns\n")):
        into(root, Path("/etc", name)).write_text(text)
    Path("/state/credential-broker").mkdir(mode=0o700, parents=True, exist_ok=True)  # a volume there gets its owner
    cache = Path("/etc/ld.so.cache")
    shutil.copy2(cache, into(root, cache))


def into(root: Path, path: Path) -> Path:
    """Return the place of an absolute path below `root`, its directory made."""
    place = root / path.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def libraries(root: Path, interpreter: Path) -> set[Path]:
    """Return the shared libraries that the interpreter and every extension module below `root` load."""
    found: set[Path] = set()
    for file in (interpreter, *root.rglob("*.so")):
        listed = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
        found |= {Path(word) for line in listed.splitlines() for word in line.split() if word.startswith("/")}
    return {path for path in found if not path.is_relative_to(root)}


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
