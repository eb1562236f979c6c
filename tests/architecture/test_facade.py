"""The command line goes no deeper than the facade, and has few lazy doors: the noun's file and `Start.broker`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from tests.support.sources import MODULES, imports, label, room, tree

CLI = [file for file in MODULES if room(file) == "cli"]
LAZY = [file for file in MODULES if room(file) in ("cli", "compose", "telemetry", "delivery")]
FREE = (
    "copies",
    "cli",
    "compose",
    "model",
    "errors",
    "config",
    "settings",
    "paths",
    "signals",
    "telemetry",
    "copies",
    "__version__",
)
HELPERS = (  # pure functions, and values that use-cases take and return: none of them reaches Vault or the partner
    "broker.fetching.",  # the other way to a bundle: over HTTP, with no login of this host
    "broker.addresses.",
    "broker.agent.",
    "broker.delivery.",
    "broker.evidence.audit.",
    "broker.evidence.export.",
    "broker.evidence.statements.",
    "broker.issuing.grant.",
    "broker.memfd.",
    "broker.network.service_address",
    "broker.systemd.report",
    "broker.partners.",
    "broker.people.eml.",
    "broker.pki.",
    "broker.rotation.importing.",
    "broker.rotation.receive.ImportOptions",
    "broker.rotation.receive.Received",
    "broker.rotation.reports.",
    "broker.scheduling.report.",
)
INIT = ("broker.embedded.server.find_binary", "broker.vault.settings.VaultSettings")  # it runs without the server extra
DOORS = {
    ("broker/compose/scheduling.py", "broker.compose.daemon"),  # a scheduler that stays: APScheduler and listeners
    ("broker/compose/sweeping.py", "broker.telemetry.exposition"),  # only for a scrape
    ("broker/cli/agent.py", "broker.agent.listening"),  # a server of HTTP, which the first files do not wait for
    ("broker/cli/agent.py", "broker.compose.kv"),  # only for [bundles.kv]: a Vault library, of an extra
    ("broker/cli/main.py", "broker.model.names"),  # only for a command that does not exist
    ("broker/cli/start.py", "broker.compose.graph"),
    ("broker/cli/start.py", "broker.telemetry.rendering"),  # only if logs are wanted
    ("broker/delivery/formats.py", "broker.pki"),  # only for a key store: cryptography takes 70 ms
    ("broker/compose/watching.py", "broker.telemetry.exposition"),  # only for a scrape of a service
}


def test_cli_stays_behind_the_facade() -> None:
    beyond = [
        (label(file), name)
        for file in CLI
        for name in imports(file)
        if name.startswith("broker.") and name.split(".")[1] not in FREE
        if not name.startswith(HELPERS) and not (file.stem == "init" and name in INIT)
    ]
    assert not beyond
    reached = [
        (label(file), node.lineno)
        for file in CLI
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Attribute) and node.attr == "roles"
    ]
    assert not reached, "Broker.roles is not for the command line"


def lazy(file: Path) -> set[tuple[str, str]]:
    """Return the modules of ours and of libraries that functions import; those of Python only cost start-up."""
    functions = (n for n in ast.walk(tree(file)) if isinstance(n, ast.FunctionDef))
    inner = (n for f in functions for n in ast.walk(f))
    found = (n for n in inner if isinstance(n, ast.Import | ast.ImportFrom))
    names = {n.module or "" if isinstance(n, ast.ImportFrom) else n.names[0].name for n in found}
    return {(label(file), name) for name in names if name.split(".")[0] not in sys.stdlib_module_names}


def test_lazy_imports_are_known_doors() -> None:
    assert set().union(*map(lazy, LAZY)) == DOORS
    loading = [label(file) for file in CLI if "importlib" in imports(file)]
    # by name: a noun's file, and what only the stand-in's distribution has
    assert loading == ["broker/cli/main.py", "broker/cli/rehearse.py", "broker/cli/serve.py"]
