"""Profiles as text and as plain data: a user's TOML file, and the document kept in Vault.

A profile is data. It names no command, its mail texts are `string.Template` with a fixed list of names, and it has no
regular expressions.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from broker.errors import InputError
from broker.model.duration import duration_text
from broker.partners.fields import UNKNOWN, Fields
from broker.partners.profile import Profile
from broker.partners.sections import (
    authentication,
    environments,
    key,
    name_of,
    operation,
    probe,
    renewal,
    subject,
    submission,
)

__all__ = ["NewerProfileError", "from_document", "parse", "to_document"]

SCHEMA: Final = 1
_LARGEST: Final = 64 * 1024
_LONGEST: Final = timedelta(days=3660)  # asked of new profiles only: one that is stored must stay readable


class NewerProfileError(InputError):
    """A newer broker wrote the profile. To replace it would take from that one what it can read."""


def parse(text: str, source: str) -> Profile:
    """Read a profile from TOML. `source` names the file in errors; raise `InputError` for every mistake."""
    if len(text) > _LARGEST:
        raise InputError(f"{source}: too large for a profile", hint=f"{_LARGEST} characters are the most")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of them tomllib.TOMLDecodeError; int() for 4301 digits has none
        raise InputError(f"{source}: not TOML: {error}"[:300], hint="broker partner show stellantis is one") from None
    profile = from_document(table, source)
    for name in ("safety", "lifetime", "overlap", "lead_time"):
        if (getattr(profile.renewal, name) or _LONGEST) > _LONGEST:
            raise InputError(f"{source}: renewal.{name} is longer than ten years", hint="write it like 30d")
    return profile


def from_document(document: Mapping[str, object], source: str) -> Profile:
    """Read a profile from plain data; raise `InputError` for every mistake."""
    fields = Fields(source, document)
    if fields.number("schema", SCHEMA) != SCHEMA:
        raise NewerProfileError(
            f"{source}: schema is not {SCHEMA}", hint="this broker is older than the profile: upgrade it"
        )
    profile = Profile(
        name=name_of(fields, "name", fields.text("name"), "profile"),
        title=fields.text("title"),
        environments=environments(fields.table("environments")),
        subject=subject(fields.table("subject")),
        key=key(fields.table("key")),
        authentication=authentication(fields.table("authentication")),
        submission=submission(fields.table("submission")),
        renewal=renewal(fields.table("renewal")),
        probe=probe(fields.table("probe")),
        operations=tuple(operation(row) for row in fields.tables("operations")),
        notes=fields.text("notes", "", lines=True),
    )
    fields.done()
    if not profile.environments:
        raise fields.wrong("environments", "has none", "add [environments.production] with its base_url")
    place = profile.authentication.client_id
    if place and any(place.name.lower() == key.lower() for key in profile.probe.query):
        raise fields.wrong("probe.query", f"has a {place.name}", "leave it out: the broker adds it")
    return profile


def to_document(profile: Profile) -> dict[str, object]:
    """Return `profile` as plain data that JSON and TOML can hold and `from_document` reads back."""
    rules, place = profile.subject, profile.authentication.client_id
    return {
        "schema": SCHEMA,
        "name": profile.name,
        "title": profile.title,
        "notes": profile.notes,
        "environments": {
            name: {"notes": e.notes} | ({"base_url": e.base_url} if e.base_url else {})
            for name, e in profile.environments.items()
        },
        "subject": {
            "order": list(rules.order),
            "required": sorted(rules.required),
            "forbidden": sorted(rules.forbidden),
            "fixed": dict(rules.fixed),
            "common_name_is_login": rules.common_name_is_login,
            "login_prefix": rules.login_prefix,
        },
        "key": {"algorithm": profile.key.algorithm, "bits": profile.key.bits, "digest": profile.key.digest},
        "authentication": {
            "basic": profile.authentication.basic,
            "client_id": {place.place.value: place.name} if place else {},
            "accept": profile.authentication.accept,
        },
        "submission": {
            "how": "e-mail",
            "to": profile.submission.to or UNKNOWN,
            "subject": profile.submission.subject,
            "body": profile.submission.body,
        },
        "renewal": {
            "safety": duration_text(profile.renewal.safety),
            "share": profile.renewal.share,
            "lifetime": _duration(profile.renewal.lifetime),
            "overlap": _duration(profile.renewal.overlap),
            "lead_time": _duration(profile.renewal.lead_time),
        },
        "probe": {
            "method": profile.probe.method,
            "path": profile.probe.path,
            "query": dict(profile.probe.query),
            "expect": sorted(profile.probe.expect),
        },
        "operations": [{"method": o.method, "path": o.path, "writes": o.writes} for o in profile.operations],
    }


def _duration(value: timedelta | None) -> str:
    return UNKNOWN if value is None else duration_text(value)
