"""Read and write profiles: a TOML file of a user, and the document stored in Vault.

A profile is data. It names no command, its mail texts are `string.Template` with a fixed list of names, and it holds no
regular expressions.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from broker.errors import InputError
from broker.model.duration import duration_text
from broker.model.setting import SettingError
from broker.partners.authentication import document_of
from broker.partners.profile import PERIODS, Profile
from broker.partners.reading import read, require_known, require_plain
from broker.partners.request import recipe
from broker.partners.sections import SETTINGS, UNKNOWN

__all__ = ["NewerProfileError", "from_document", "parse", "to_document"]

SCHEMA: Final = 1
_LARGEST: Final = 64 * 1024
_LONGEST: Final = timedelta(days=3660)  # for new profiles only: stored ones must stay readable
_EXAMPLE: Final = "for an example: broker partner show stellantis -o toml"
_LINES: Final = ("notes", "body")  # texts that may have line breaks


class NewerProfileError(InputError):
    """A newer broker wrote the profile. Replacing it would lose what that broker knows."""


def parse(source_text: str, source: str) -> Profile:
    """Read a profile from TOML. `source` names the file in errors; raise `InputError` for every mistake."""
    if len(source_text) > _LARGEST:
        raise InputError(f"{source}: too large for a profile", hint=f"use at most {_LARGEST} characters")
    try:
        table = tomllib.loads(source_text)
    except (ValueError, RecursionError) as error:  # ValueError: int() of 4301 digits
        raise InputError(f"{source}: not TOML: {error}"[:300], hint=_EXAMPLE) from None
    profile = from_document(table, source)
    for name in ("safety", *PERIODS):
        if (getattr(profile.renewal, name) or _LONGEST) > _LONGEST:
            raise InputError(f"{source}: renewal.{name} is longer than ten years", hint="write it like 30d")
    return profile


def from_document(document: Mapping[str, object], source: str) -> Profile:
    """Read a profile from plain data; raise `InputError` for every mistake."""
    schema = document.get("schema", SCHEMA)
    if type(schema) is not int:
        raise InputError(f"{source}: schema is not a whole number", hint=f"write schema = {SCHEMA}")
    if schema != SCHEMA:
        raise NewerProfileError(
            f"{source}: schema is not {SCHEMA}", hint="upgrade this broker: a newer one wrote the profile"
        )
    try:
        return _profile(document)
    except SettingError as error:
        raise InputError(f"{source}: {error.message}", hint=error.hint) from None
    except RecursionError:
        raise InputError(f"{source}: nested too deeply", hint=_EXAMPLE) from None


def to_document(profile: Profile) -> dict[str, Any]:
    """Return `profile` as plain data for JSON and TOML, which `from_document` reads back."""
    plain = msgspec.to_builtins(profile, builtin_types=(timedelta,), order="deterministic")
    plain["authentication"] = document_of(profile.authentication)
    return {"schema": SCHEMA, **_written(plain)}


def _profile(document: Mapping[str, object]) -> Profile:
    require_plain(document, _LINES)
    for key in ("name", "title"):
        if key not in document:
            raise SettingError(key, "is missing", _EXAMPLE)
    require_known(document, ("schema", *SETTINGS))
    whole = {"environments": {}, **document}
    profile = Profile(**{key: read(key, reader, whole[key]) for key, reader in SETTINGS.items() if key in whole})
    _require_apart(profile)
    return profile


def _require_apart(profile: Profile) -> None:
    """Refuse a query of the probe that has a parameter of the authentication."""
    shown = profile.authentication.shown(recipe("https://partner", profile.authentication, "GET", "/"))
    for name, _ in parse_qsl(shown.target.partition("?")[2]):
        if any(name.lower() == key.lower() for key in profile.probe.query):
            raise SettingError("probe.query", f"has a {name}", "leave it out: the broker adds it")


def _written(value: Any) -> Any:
    """Return `value` in the form that people write."""
    if isinstance(value, dict):
        return {key: _written(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_written(inner) for inner in value]
    if isinstance(value, timedelta):
        return duration_text(value)
    return UNKNOWN if value is None else value
