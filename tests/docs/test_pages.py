"""The documentation agrees with the code, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from broker.delivery.formats import DEFAULT, FileFormat
from tests.support.clients import COLUMNS, REASONS, WAYS
from tests.support.markdown import PAGES, anchors, links
from tests.support.sources import ROOT, label

DOCS = ROOT / "docs"


@pytest.mark.slow
def test_the_reference_is_what_the_code_says() -> None:
    compared = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert compared.returncode == 0, f"run `make docs`\n{compared.stdout}{compared.stderr}"


def test_every_client_and_format_is_shown() -> None:
    """Each format that `bundle get` writes for programs has a column, and a client that reads it."""
    columns = {file for files in COLUMNS.values() for file in files}
    text = set(DEFAULT) - columns
    assert text == {FileFormat.USERNAME, FileFormat.PASSWORD, FileFormat.CLIENT_ID}
    assert set(FileFormat) - columns - text == {FileFormat.SECRETS, FileFormat.PASSPHRASE}
    assert {file for way in WAYS for file in way.files} == columns
    assert {way.client for way in WAYS} == set(REASONS)


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_local_links_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_recipes_name_files_that_exist() -> None:
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:broker|docs|policies|tests|\.ci)/[\w./-]*)`", text)
    made = re.compile(r"[A-Z]{3}")  # NAME, KIND: the file that the recipe adds
    assert len(named) > 50
    assert not [name for name in named if not made.search(name) and not (ROOT / name).exists()]


def test_every_direct_dependency_has_a_line() -> None:
    """In docs/dependencies.md: what for, why this one, what it would take to drop it; and no line for what is gone."""
    wanted = []
    for folder in (ROOT, ROOT / "standin"):
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        wanted += [*project["build-system"]["requires"], *project["project"]["dependencies"]]
        wanted += [name for extra in project["project"].get("optional-dependencies", {}).values() for name in extra]
    names = {re.split(r"[<>=~!\[; ]", requirement)[0].lower() for requirement in wanted}
    names -= {"credential-broker", "partner-standin"}
    text = (DOCS / "dependencies.md").read_text(encoding="utf-8").partition("\n## Programs")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert {row[0] for row in rows} == names
    assert all(all(cell.strip() for cell in row) for row in rows)


def peers_installed() -> set[str]:
    table = (ROOT / ".ci" / "peers").read_text(encoding="utf-8").partition("\npeers='\n")[2].partition("\n'\n")[0]
    return {line.split()[0] for line in table.splitlines()}


def peers_needed() -> set[str]:
    """Return the programs that tests name in a mark, which must be written out for this to find them."""
    marks = (
        re.findall(r"mark\.peer\((\"[^)]*)\)", f.read_text(encoding="utf-8")) for f in (ROOT / "tests").rglob("*.py")
    )
    named = {name for found in marks for arguments in found for name in re.findall(r'"([^"]+)"', arguments)}
    return named.union(*(way.programs for way in WAYS))


def test_ci_installs_every_needed_peer() -> None:
    assert peers_needed() <= peers_installed()


def test_every_peer_is_explained() -> None:
    text = (DOCS / "dependencies.md").read_text(encoding="utf-8").partition("\n## Programs")[2]
    assert peers_installed() <= set(re.findall(r"`([^`]+)`", text))


def test_every_decision_is_in_the_index() -> None:
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    decisions = {path.name for path in (DOCS / "adr").glob("[0-9]*.md")}
    assert decisions == set(re.findall(r"\]\((\d{4}-[^)]+)\)", index))
    assert sorted(name[:4] for name in decisions) == [f"{n:04d}" for n in range(1, len(decisions) + 1)]


def test_glossary_has_every_model_word() -> None:
    from broker.model.stage import Stage

    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    assert not [stage.value for stage in Stage if f"`{stage.value}`" not in text]


def test_the_changelog_knows_this_version() -> None:
    from broker import __version__

    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("README.md", r"^make test +# (.*)$"),
        ("CONTRIBUTING.md", r"^make test +# (.*)$"),
        ("Makefile", r"^test: ## (.*)$"),
    ],
)
def test_pages_name_what_make_test_omits(page: str, line: str) -> None:
    (said,) = re.findall(line, (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert "every test but the long ones" in said
    assert "not deep and not chaos and not fuzz" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_ci_runs_the_long_tests_too() -> None:
    assert re.search(r"^make .*test-all.*--cov", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
