"""Every language of a profile has a sentence for everything that the partner is asked to correct."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Final

import pytest

from broker.model.finding import Finding
from broker.partners.catalogue import builtin, names
from broker.people.eml import for_contact
from broker.pki import certificate_fields, verification
from tests.pki.inputs import INPUTS

_CALLS: Final = ("_error", "error", "judge")  # a finding that refuses, or may


def refusing() -> frozenset[str]:
    """Return the codes of every error that `verify_certificate` can find, read from its source, and of a missing CA."""
    return frozenset({"reply.ca", *_codes(verification), *_codes(certificate_fields)})


def _codes(module: ModuleType) -> Iterator[str]:
    for function in ast.parse(inspect.getsource(module)).body:
        if isinstance(function, ast.FunctionDef):
            of_any = any(argument.arg == "name" for argument in function.args.args)  # of a leaf and of CAs
            kinds = ["ca."] if function.name.startswith("_ca_") else ["", "ca."] if of_any else [""]
            said = [code.removeprefix("certificate.") for code in _said(function)]
            yield from (f"certificate.{kind}{code}" for kind in kinds for code in said)


def _said(function: ast.FunctionDef) -> Iterator[str]:
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call) and node.args):
        names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(call.func)}
        if names & {*_CALLS}:
            assert isinstance(call.args[0], ast.Constant), f"{function.name}: the code of an error is not a literal"
            yield str(call.args[0].value)


@pytest.mark.parametrize(
    ("profile", "language"), [(name, language) for name in names() for language in builtin(name).submission.texts]
)
def test_each_language_has_every_sentence(profile: str, language: str) -> None:
    """Neither is a sentence for a code that no finding has. "certificate.unpinned" is our own affair."""
    text = builtin(profile).submission.text(language)
    assert {*text.findings} == refusing() - {"certificate.unpinned"}
    assert len(set(text.findings.values())) > len(text.findings) - 3, "the sentences differ"
    assert text.refusal != text.__class__().refusal
    assert text.reminder != text.__class__().reminder
    assert text.deadline != text.__class__().deadline


def test_the_codes_are_those_that_are_found() -> None:
    """Each error of the table of inputs is among the codes that were read from the source."""
    lines = (line.split() for one in INPUTS.values() for line in filter(None, one.findings.split(", ")))
    found = {f"certificate.{code}" for severity, code in lines if severity == "error"}
    assert len(found) > 15
    assert found <= refusing()
    assert {f.code for f in for_contact(Finding.error(code, "", "") for code in refusing())} == refusing()
