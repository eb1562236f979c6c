"""Read and write profiles: a TOML file of a user, and the document stored in Vault.

A profile is data. It names no command, its mail texts are `string.Template` with a fixed list of names, and it holds no
regular expressions. Each setting has a reader, which raises `SettingError` for every mistake.
"""

import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from string import Template
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from broker.errors import BrokerError, InputError
from broker.model.channel import Channel
from broker.model.due import Renewal
from broker.model.duration import duration_text, parse_duration
from broker.model.names import checked_name, mail_address
from broker.model.setting import SettingError
from broker.model.subject import ATTRIBUTES, BOUNDS, KeyRules, SubjectRules
from broker.partners.authentication import authentication_of, document_of, is_media_type
from broker.partners.profile import (
    PERIODS,
    Environment,
    MailText,
    Operation,
    Probe,
    Profile,
    Quota,
    Refusal,
    Submission,
)
from broker.partners.reading import choice, converted, of_text, read, require_known, require_plain, text
from broker.partners.request import METHODS, base_url, join, recipe

SCHEMA: Final = 1
_LARGEST: Final = 64 * 1024
_LONGEST: Final = timedelta(days=3660)  # for new profiles only: stored ones must stay readable
_EXAMPLE: Final = "for an example: broker partner show stellantis -o toml"
_LINES: Final = ("notes", "body", "refusal", "revoke", "reminder", "deadline")  # texts that may have line breaks
_UNKNOWN: Final = "unknown"  # the value of settings that the partner has not published
PLACEHOLDERS: Final = ("account", "environment", "login", "partner", "serial", "subject")  # in mails
_OLD_WAYS: Final = {"e-mail": Channel.EML.value}  # as profiles of 0.1.0 say it
_READING: Final = ("GET", "HEAD")
_SUCCESSES: Final = range(200, 300)
_REFUSALS: Final = range(400, 600)


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
    require_known(document, ("schema", *_SETTINGS))
    whole = {"environments": {}, **document}
    profile = Profile(**{key: read(key, reader, whole[key]) for key, reader in _SETTINGS.items() if key in whole})
    # The probe's query may not have a parameter of the authentication
    shown = profile.authentication.shown(recipe("https://partner", profile.authentication, "GET", "/"))
    for name, _ in parse_qsl(shown.target.partition("?")[2]):
        if any(name.lower() == key.lower() for key in profile.probe.query):
            raise SettingError("probe.query", f"has a {name}", "leave it out: the broker adds it")
    return profile


def _written(value: Any) -> Any:
    """Return `value` in the form that people write."""
    if isinstance(value, dict):
        return {key: _written(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_written(inner) for inner in value]
    if isinstance(value, timedelta):
        return duration_text(value)
    return _UNKNOWN if value is None else value


def _table(kind: type[Any], **readers: Callable[[Any], object]) -> Callable[[object], Any]:
    return partial(converted, kind=kind, readers=readers)


def _known(reader: Callable[[str], object]) -> Callable[[object], object]:
    """Return a reader that reads "unknown" as None."""
    return lambda value: None if value == _UNKNOWN else reader(text(value))


def _environments(value: object) -> dict[str, Environment]:
    """Read the partner's environments, by name."""
    if not isinstance(value, Mapping) or not value:
        raise SettingError("", "is missing, or empty", "add [environments.production] with its base_url")
    for name in value:
        read(name, partial(checked_name, kind="environment"), name)
    row = _table(Environment, base_url=_known(base_url))
    return {name: read(name, row, value[name]) for name in value}


def _subject(value: object) -> SubjectRules:
    rules = converted(value, SubjectRules, {"order": lambda order: order or list(ATTRIBUTES)})
    for key, words in (("order", ATTRIBUTES), ("required", rules.order), ("forbidden", ATTRIBUTES)):
        for name in sorted(getattr(rules, key)):
            read(key, choice(*words), name)
    for name, fixed in rules.fixed.items():
        if name not in rules.order:
            raise SettingError(f"fixed.{name}", "is not in subject.order", f"use one of {', '.join(rules.order)}")
        if not 0 < len(fixed) <= BOUNDS[name]:
            raise SettingError(f"fixed.{name}", f"has {len(fixed)} characters", f"1 to {BOUNDS[name]} are allowed")
    ordered = set(rules.order) if rules.order != ATTRIBUTES else set()
    both = rules.forbidden & (rules.required | rules.fixed.keys() | ordered)
    if both:
        raise SettingError("forbidden", f"has {min(both)}, which another setting requires", "remove one of them")
    return rules


def _share(value: object) -> float:
    """Read a share, written as `66%` or 0.66."""
    if isinstance(value, str) and value.endswith("%") and value[:-1].isascii() and value[:-1].isdigit():
        value = int(value[:-1]) / 100
    if not isinstance(value, float) or not 0 < value < 1:
        raise SettingError("", "is not a share", "write a percentage between 1% and 99%")
    return value


def _submission(value: object) -> Submission:
    readers = {**_TEXTS, "how": _way, "to": _known(mail_address), "url": _web_address, "texts": _texts}
    readers |= {"download_within": of_text(parse_duration)}
    found = converted(value, Submission, readers)
    if found.how is Channel.PORTAL and not found.url:
        raise SettingError("url", "is missing", "the address of the portal")
    if found.language and found.language not in found.texts:
        raise SettingError("language", f"is {found.language[:20]!r}", "add its texts: [submission.texts.LANGUAGE]")
    return found


def _way(value: object) -> object:
    known = choice(*_OLD_WAYS, *(channel.value for channel in Channel))(value)
    return _OLD_WAYS.get(known, known) if isinstance(known, str) else known


def _web_address(value: object) -> str:
    address = text(value)
    if address and (not address.startswith("https://") or " " in address):
        raise SettingError("", f"is {address[:60]!r}", "write it like https://portal.partner.example/csr")
    return address


def _texts(value: object) -> dict[str, MailText]:
    if not isinstance(value, Mapping):
        raise SettingError("", "is not a table", "write a table for each language: [submission.texts.fr]")
    return {checked_name(name, "language"): read(name, _table(MailText, **_TEXTS), value[name]) for name in value}


def _template(value: object, *more: str) -> str:
    template = Template(text(value))
    if not template.is_valid():
        raise SettingError("", "has a '$' without a name", "write $$ for a dollar")
    for name in template.get_identifiers():
        if name not in (known := (*PLACEHOLDERS, *more)):
            raise SettingError("", f"has an unknown ${name[:40]}", f"use {', '.join('$' + p for p in known)}")
    return template.template


def _path(value: object) -> str:
    path = text(value)
    try:
        join("", path.replace("{", "").replace("}", ""))
    except BrokerError as error:
        raise SettingError("", f"is {path[:60]!r}", error.hint) from None
    if "?" in path:
        raise SettingError("", "has a query", "write the query under query = {}")
    return path


def _successes(value: object) -> object:
    if not isinstance(value, list) or not value or any(type(s) is int and s not in range(200, 300) for s in value):
        raise SettingError("", "has a status that is not a success", "list statuses from 200 to 299")
    return value


def _rows(reader: Callable[[object], Any]) -> Callable[[object], tuple[Any, ...]]:
    def rows(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise SettingError("", "is not a list", "write a table in double brackets for each: [[operations]]")
        return tuple(read(f"[{index}]", reader, row) for index, row in enumerate(value))

    return rows


def _operation(value: object) -> Operation:
    if isinstance(value, Mapping):
        value = {"writes": value.get("method") not in _READING, **value}
    readers = {"method": choice(*METHODS), "path": _path, "status": _status(_SUCCESSES), "accept": _accept}
    return converted(value, Operation, readers)


def _status(known: range) -> Callable[[object], object]:
    def status(value: object) -> object:
        if type(value) is int and value not in known:
            raise SettingError("", f"is {value}", f"use a status from {known[0]} to {known[-1]}")
        return value

    return status


def _media_type(value: object) -> str:
    """Read a media type. A space at its end, as published OpenAPIs have it, is removed."""
    found = text(value).strip()
    if not is_media_type(found):
        raise SettingError("", "is not a media type", "write it like application/json")
    return found


def _accept(value: object) -> str:
    return _media_type(value) if value else ""


_TEXTS: Final[Mapping[str, Callable[[Any], object]]] = {
    "subject": _template,
    "body": _template,
    "revoke": _template,
    "refusal": lambda value: _template(value, "findings"),
    "reminder": lambda value: _template(value, "sent"),
    "deadline": lambda value: _template(value, "ends"),
}
_SETTINGS: Final[Mapping[str, Callable[[object], Any]]] = {
    "name": of_text(partial(checked_name, kind="profile")),
    "title": text,
    "notes": text,
    "environments": _environments,
    "subject": _subject,
    "key": _table(
        KeyRules,
        algorithm=choice("rsa"),
        bits=choice(2048, 3072, 4096, 8192),
        digest=choice("sha256", "sha384", "sha512"),
    ),
    "authentication": authentication_of,
    "submission": _submission,
    "renewal": _table(
        Renewal, safety=of_text(parse_duration), share=_share, **dict.fromkeys(PERIODS, _known(parse_duration))
    ),
    "probe": _table(Probe, method=choice(*_READING), path=_path, expect=_successes),
    "media_type": _media_type,
    "quotas": _rows(_table(Quota, window=of_text(parse_duration))),
    "refusals": _rows(_table(Refusal, status=_status(_REFUSALS))),
    "operations": _rows(_operation),
}
