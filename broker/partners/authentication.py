"""Read and write the table [authentication] of profiles and manifests, which has each part under its kind.

`true` includes a part with its defaults, a table gives its settings, `false` or an empty table leaves it out. Parts not
mentioned are left out too, except those of `authentication.DEFAULT`.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import fields

from broker.model.authentication import DEFAULT, PARTS, Authentication, Part
from broker.model.authentication.interface import VALUES
from broker.model.names import checked_name
from broker.model.setting import SettingError
from broker.partners.reading import converted, read, require_known


def authentication_of(table: object) -> Authentication:
    """Read the table; raise `SettingError` with a key within the table."""
    if not isinstance(table, Mapping):
        raise SettingError("", "is not a table", "it must be a table")
    require_known(table, (*PARTS, "accept"))
    accept = table.get("accept", Authentication().accept)
    if not is_media_type(accept):
        raise SettingError("accept", "is empty, or has a control character", "write a media type: application/json")
    return Authentication(tuple(_parts(table)), str(accept))


def is_media_type(value: object) -> bool:
    """Return whether `value` may stand in Accept."""
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


def document_of(authentication: Authentication) -> dict[str, Any]:
    """Return the table that `authentication_of` reads back."""
    there = {part.kind: _settings(part) or True for part in authentication.parts}
    absent: dict[str, Any] = {part.kind: {} if _settings(part) else False for part in DEFAULT if part.kind not in there}
    return {**there, **absent, "accept": authentication.accept}


def _parts(table: Mapping[str, object]) -> Iterator[Part]:
    usual = {part.kind: part for part in DEFAULT}
    for kind, part in PARTS.items():
        if kind not in table:
            yield from (usual[kind],) if kind in usual else ()
        elif table[kind] not in (False, {}):
            yield read(kind, partial(_part, part), table[kind])


def _part(kind: type[Part], settings: object) -> Part:
    part = converted({} if settings is True else settings, kind)
    for name in part.needs:
        if name not in VALUES:
            checked_name(name, "secret")
    return part


def _settings(part: Part) -> dict[str, Any]:
    """Return the settings that differ from their defaults."""
    values: dict[str, Any] = msgspec.to_builtins(part)
    return {f.name: values[f.name] for f in fields(type(part)) if getattr(part, f.name) != f.default}
