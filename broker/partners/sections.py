"""The settings of a profile: a reader for each, which raises `SettingError` for every mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from string import Template
from types import MappingProxyType
from typing import Any, Final

from broker.errors import BrokerError
from broker.model.duration import parse_duration
from broker.model.names import checked_name, mail_address
from broker.model.setting import SettingError
from broker.model.subject import ATTRIBUTES, BOUNDS, KeyRules, SubjectRules
from broker.partners.authentication import authentication_of
from broker.partners.profile import PERIODS, Environment, Operation, Probe, Renewal, Submission
from broker.partners.reading import choice, converted, of_text, read, text
from broker.partners.request import METHODS, base_url, join

__all__ = ["PLACEHOLDERS", "SETTINGS", "UNKNOWN"]

UNKNOWN: Final = "unknown"  # the value of settings that the partner has not published
PLACEHOLDERS: Final = ("account", "environment", "login", "partner", "subject")  # in mails
_READING: Final = ("GET", "HEAD")


def _table(kind: type[Any], **readers: Callable[[Any], object]) -> Callable[[object], Any]:
    return partial(converted, kind=kind, readers=readers)


def _known(reader: Callable[[str], object]) -> Callable[[object], object]:
    """Return a reader that reads "unknown" as None."""
    return lambda value: None if value == UNKNOWN else reader(text(value))


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


def _template(value: object) -> str:
    template = Template(text(value))
    if not template.is_valid():
        raise SettingError("", "has a '$' without a name", "write $$ for a dollar")
    for name in template.get_identifiers():
        if name not in PLACEHOLDERS:
            raise SettingError("", f"has an unknown ${name[:40]}", f"use {', '.join('$' + p for p in PLACEHOLDERS)}")
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


def _operations(value: object) -> tuple[Operation, ...]:
    if not isinstance(value, list):
        raise SettingError("", "is not a list", "write [[operations]]")
    return tuple(read(f"[{index}]", _operation, row) for index, row in enumerate(value))


def _operation(value: object) -> Operation:
    if isinstance(value, Mapping):
        value = {"writes": value.get("method") not in _READING, **value}
    return converted(value, Operation, {"method": choice(*METHODS), "path": _path})


SETTINGS: Final[Mapping[str, Callable[[object], Any]]] = MappingProxyType(
    {
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
        "submission": _table(
            Submission, how=choice("e-mail"), to=_known(mail_address), subject=_template, body=_template
        ),
        "renewal": _table(
            Renewal, safety=of_text(parse_duration), share=_share, **dict.fromkeys(PERIODS, _known(parse_duration))
        ),
        "probe": _table(Probe, method=choice(*_READING), path=_path, expect=_successes),
        "operations": _operations,
    }
)
