"""The sections of a profile, each read by one function that raises `InputError` for every mistake in it."""

from __future__ import annotations

from string import Template
from typing import Final

from broker.errors import BrokerError
from broker.model.authentication import Authentication, ClientId, Place
from broker.model.duration import parse_duration
from broker.model.names import checked_name, mail_address
from broker.model.subject import ATTRIBUTES, BOUNDS, KeyRules, SubjectRules
from broker.partners.fields import Fields
from broker.partners.profile import Environment, Operation, Probe, Renewal, Submission
from broker.partners.request import METHODS, base_url, join

__all__ = [
    "PLACEHOLDERS",
    "authentication",
    "environments",
    "key",
    "name_of",
    "operation",
    "probe",
    "renewal",
    "subject",
    "submission",
]

PLACEHOLDERS: Final = ("account", "environment", "login", "partner", "subject")  # in mails
_BITS: Final = (2048, 3072, 4096, 8192)
_SUCCESS: Final = range(200, 300)
_TOKEN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_TAKEN: Final = frozenset(  # headers with a meaning of their own
    {
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


def environments(fields: Fields) -> dict[str, Environment]:
    """Read the partner's installations; their names are the keys."""
    found = {}
    for name in fields.names():
        row = fields.table(name_of(fields, name, name, "environment"))
        found[name] = Environment(row.known("base_url", base_url), row.text("notes", "", lines=True))
        row.done()
    return found


def subject(fields: Fields) -> SubjectRules:
    """Read what the subject must and must not have."""
    order = fields.texts("order", ATTRIBUTES) or ATTRIBUTES
    fixed_table = fields.table("fixed")
    fixed = {name: fixed_table.text(name) for name in fixed_table.names()}
    rules = SubjectRules(
        order=order,
        required=frozenset(fields.texts("required", order)),
        forbidden=frozenset(fields.texts("forbidden", ATTRIBUTES)),
        fixed=fixed,
        common_name_is_login=fields.flag("common_name_is_login", default=False),
        login_prefix=fields.text("login_prefix", ""),
    )
    fields.done()
    for name, value in fixed.items():
        if name not in order:
            raise fields.wrong(f"fixed.{name}"[:80], "is not in the order", f"use one of {', '.join(order)}")
        if not 0 < len(value) <= BOUNDS[name]:
            raise fields.wrong(f"fixed.{name}", f"has {len(value)} characters", f"1 to {BOUNDS[name]} are allowed")
    both = rules.forbidden & (rules.required | fixed.keys() | (set(order) if order != ATTRIBUTES else set()))
    if both:
        raise fields.wrong("forbidden", f"has {min(both)}, which is asked for too", "keep one of the two")
    return rules


def key(fields: Fields) -> KeyRules:
    """Read what key and signature the partner takes."""
    algorithm = fields.choice("algorithm", ("rsa",), "rsa")
    bits = fields.number("bits", KeyRules().bits)
    if bits not in _BITS:
        raise fields.wrong("bits", "is no size that is used", f"use one of {', '.join(map(str, _BITS))}")
    digest = fields.choice("digest", ("sha256", "sha384", "sha512"), "sha256")
    fields.done()
    return KeyRules(algorithm, bits, digest)


def authentication(fields: Fields) -> Authentication:
    """Read how a request says who sends it."""
    default = Authentication()
    place = _client_id(fields.table("client_id")) if "client_id" in fields.names() else default.client_id
    accept = fields.text("accept", default.accept)
    if not accept or not accept.isascii():
        raise fields.wrong("accept", "is not a media type", "write one like application/json")
    found = Authentication(basic=fields.flag("basic", default=True), client_id=place, accept=accept)
    fields.table("client_id")
    fields.done()
    return found


def _client_id(fields: Fields) -> ClientId | None:
    query, header = fields.text("query", ""), fields.text("header", "")
    fields.done()
    if query and header:
        raise fields.wrong("header", "is given, and a query too", "keep one of the two")
    name = query or header
    if not set(name) <= _TOKEN or name.lower() in _TAKEN:
        raise fields.wrong("query" if query else "header", f"cannot be {name[:60]!r}", "client_id is usual")
    if not name:
        return None
    return ClientId(Place.QUERY if query else Place.HEADER, name)


def submission(fields: Fields) -> Submission:
    """Read how a CSR reaches the partner's people."""
    default = Submission()
    fields.choice("how", ("e-mail",), "e-mail")
    found = Submission(
        to=fields.known("to", mail_address),
        subject=_template(fields, "subject", fields.text("subject", default.subject)),
        body=_template(fields, "body", fields.text("body", default.body, lines=True)),
    )
    fields.done()
    return found


def _template(fields: Fields, key: str, text: str) -> str:
    template = Template(text)
    if not template.is_valid():
        raise fields.wrong(key, "has a '$' that names nothing", "write $$ for a dollar")
    for name in template.get_identifiers():
        if name not in PLACEHOLDERS:
            raise fields.wrong(key, f"has ${name[:40]}", f"use {', '.join('$' + p for p in PLACEHOLDERS)}")
    return text


def renewal(fields: Fields) -> Renewal:
    """Read when to start again."""
    default = Renewal()
    found = Renewal(
        safety=fields.duration("safety", default.safety),
        share=fields.share("share", default.share),
        lifetime=fields.known("lifetime", parse_duration),
        overlap=fields.known("overlap", parse_duration),
        lead_time=fields.known("lead_time", parse_duration),
    )
    fields.done()
    return found


def probe(fields: Fields) -> Probe:
    """Read the harmless request of a canary."""
    default = Probe()
    query_table = fields.table("query")
    found = Probe(
        method=fields.choice("method", ("GET", "HEAD"), default.method),
        path=_path(fields, fields.text("path", default.path)),
        query={name: query_table.text(name) for name in query_table.names()},
        expect=frozenset(fields.numbers("expect", default.expect)),
    )
    fields.done()
    if not found.expect or not found.expect <= set(_SUCCESS):
        raise fields.wrong("expect", "has a status that is no success", "list statuses from 200 to 299")
    return found


def operation(fields: Fields) -> Operation:
    """Read one row of what the API can do."""
    method = fields.choice("method", METHODS)
    path = fields.text("path")
    _path(fields, path.replace("{", "").replace("}", ""))
    found = Operation(method, path, writes=fields.flag("writes", default=method not in ("GET", "HEAD")))
    fields.done()
    return found


def name_of(fields: Fields, key: str, text: str, kind: str) -> str:
    """Return `text` as a name; a mistake is told under `key`."""
    return fields.said(key, lambda: checked_name(text, kind))


def _path(fields: Fields, path: str) -> str:
    try:
        join("", path)
    except BrokerError as error:
        raise fields.wrong("path", f"is {path[:60]!r}", error.hint) from None
    if "?" in path:
        raise fields.wrong("path", "has a query", "write the query as a table of its own")
    return path
