"""Rules for the values of a subject that hold for every partner: length, characters, leftovers of a template.

The bounds are X.520's (RFC 5280, A.1), counted in characters; the pitfalls are those of the partner's published guide.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from broker.errors import InputError
from broker.model.finding import Finding
from broker.model.names import mail_address
from broker.model.subject import ATTRIBUTES, BOUNDS, Subject
from broker.pki.names import ReadName, shown

__all__ = ["code_of", "login_mismatch", "unencodable", "unknown_attributes", "value_faults"]

_OPENSSL_EMAIL: Final = 128
_TEMPLATE: Final = re.compile(r"<[^<>]*[^\W\d_][^<>]*>|\{\{.*?\}\}|\$\{[^}]*\}|%[A-Z_]+%")
_YOUR: Final = re.compile(
    r"your[ _-]?(?:company|organi[sz]ation|name|city|town|locality|state|province|region|country|department|unit"
    r"|e-?mail|login|mzp|mail)\b.*|change[ _-]?me|to ?do|tbd|x{3,}|\.{3}|…",
    re.IGNORECASE,
)
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_PRINTABLE: Final = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*")
_UNENCODABLE: Final = frozenset({"name", "empty", "long", "control", "surrogate", "ascii", "printable", "short"})


def code_of(attribute: str) -> str:
    """Return the word for `attribute` in a finding's code."""
    return {"emailAddress": "email"}.get(attribute, attribute.lower())


def unencodable(subject: Subject) -> tuple[Finding, ...]:
    """Return an error for everything in `subject` that openssl refuses to encode, and for control characters."""
    if not subject.attributes:
        return (Finding.error("subject.empty", "the subject has no attributes", "set at least the common name"),)
    found = (fault for name, value in subject.attributes for fault in value_faults(name, value))
    return tuple(fault for fault in found if fault.code.rsplit(".", 1)[-1] in _UNENCODABLE)


def login_mismatch(common_name: str, login: str) -> str:
    """Return a message if `common_name` is not the account's `login`, else ""; any name will do for no login."""
    if not login or common_name == login:
        return ""
    case = ": upper and lower case count" if common_name.casefold() == login.casefold() else ""
    return f"CN is {shown(common_name)}, and the account's login is {shown(login)}{case}"


def unknown_attributes(subject: ReadName) -> Iterator[tuple[str, str]]:
    """Yield a message, and the attribute's name, for each attribute that a `Subject` cannot hold."""
    for attribute in subject.unknown:
        yield f"the subject holds {attribute.name} ({shown(attribute.value)}), which no rule mentions", attribute.name


def value_faults(name: str, value: str) -> Iterator[Finding]:
    """Yield the faults of `value` as attribute `name` of a subject."""
    if name not in ATTRIBUTES:
        yield _error(name, "name", f"'{name}' is no attribute of a subject", "use one of: " + ", ".join(ATTRIBUTES))
        return
    if not value:
        yield _error(name, "empty", f"{name} is empty", f"set {name}, or leave the attribute out")
        return
    yield from _length(name, value)
    yield from _characters(name, value)
    yield from _template(name, value)
    if name == "C":
        yield from _country(value)
    if name == "emailAddress":
        yield from _email(value)


def _length(name: str, value: str) -> Iterator[Finding]:
    bound = BOUNDS[name]
    if len(value) > bound:
        message = f"{name} has {len(value)} characters, the standard allows {bound}: {shown(value)}"
        yield _error(name, "long", message, f"shorten {name} to {bound} characters")
    elif name == "emailAddress" and len(value) > _OPENSSL_EMAIL:
        message = f"{name} has {len(value)} characters, and openssl itself refuses more than {_OPENSSL_EMAIL}"
        yield _warning(name, "openssl", message, "use a shorter address")


def _characters(name: str, value: str) -> Iterator[Finding]:
    categories = {unicodedata.category(c) for c in value}
    repaired = _undone_double_encoding(value)
    if "Cs" in categories:
        yield _error(name, "surrogate", f"{name} holds half a character: {shown(value)}", f"type {name} again")
    elif repaired:
        message = f"{name} was encoded to UTF-8 twice: {shown(value)} should be {shown(repaired)}"
        yield _error(name, "mojibake", message, f"set {name} to {shown(repaired)}; with openssl, add -utf8")
    elif "\ufffd" in value:
        message = f"{name} holds the sign for a lost character: {shown(value)}"
        yield _error(name, "mojibake", message, f"type {name} again, in a UTF-8 terminal")
    # Also beside the above: twice-encoded capitals hold C1 controls, and controls are never encoded.
    if categories & {"Cc", "Zl", "Zp"}:
        message = f"{name} holds a control character, such as a line end or NUL: {shown(value)}"
        yield _error(name, "control", message, f"type {name} again, on one line")
    if "Cf" in categories:
        message = f"{name} holds an invisible character: {shown(value)}"
        yield _warning(name, "invisible", message, f"type {name} again in place of pasting it")
    if unicodedata.normalize("NFC", value) != value:
        message = f"{name} writes an accent as a character of its own, which compares unequal: {shown(value)}"
        yield _warning(name, "decomposed", message, f"set {name} to {shown(unicodedata.normalize('NFC', value))}")
    if value != value.strip():
        yield _error(name, "blank", f"{name} begins or ends with a blank: {shown(value)}", f"remove it from {name}")


def _template(name: str, value: str) -> Iterator[Finding]:
    if _TEMPLATE.search(value) or _YOUR.fullmatch(value.strip()):
        yield _error(name, "placeholder", f"{name} is still the template's: {shown(value)}", f"set {name} to your own")
    elif value.strip().startswith("<") or value.strip().endswith(">"):
        message = f"{name} keeps a bracket of the template, as the guide's keytool example does: {shown(value)}"
        yield _error(name, "bracket", message, f"set {name} to {shown(value.strip(' <>'))}")


def _country(value: str) -> Iterator[Finding]:
    if not _PRINTABLE.fullmatch(value):
        yield _error("C", "printable", f"C holds characters that no country code has: {shown(value)}", "such as FR")
    if len(value) < BOUNDS["C"]:
        yield _error("C", "short", f"C has one letter instead of two: {shown(value)}", "such as FR")
    elif not _COUNTRY.fullmatch(value):
        upper = value.strip().upper()
        hint = f"set C to {upper}" if _COUNTRY.fullmatch(upper) else "use the two letters of ISO 3166, such as FR"
        yield _error("C", "invalid", f"C is not two upper-case letters: {shown(value)}", hint)
    elif value == "UK":
        yield _warning("C", "uk", "C is 'UK', but ISO 3166 writes 'GB'", "set C to GB")


def _email(value: str) -> Iterator[Finding]:
    if not value.isascii():
        message = f"emailAddress is not plain ASCII: {shown(value)}"
        yield _error("emailAddress", "ascii", message, "use an ASCII address (xn--… for the domain)")
    elif not _is_address(value):
        message = f"emailAddress is not one address: {shown(value)}"
        yield _error("emailAddress", "invalid", message, "give a single address, such as fleet@company.example")


def _is_address(value: str) -> bool:
    """Return whether it can be the sender of a CSR's mail. In a certificate its domain has a dot."""
    try:
        return "." in mail_address(value).rpartition("@")[2]
    except InputError:
        return False


def _undone_double_encoding(value: str) -> str:
    """Return what `value` was before openssl without -utf8, or Windows, read its UTF-8 as Latin-1; else ""."""
    if value.isascii():
        return ""
    for codec in ("latin-1", "cp1252"):
        try:
            return value.encode(codec).decode("utf-8")
        except UnicodeError:
            continue
    return ""


def _error(name: str, fault: str, message: str, hint: str) -> Finding:
    return Finding.error(f"subject.{code_of(name)}.{fault}", message, hint)


def _warning(name: str, fault: str, message: str, hint: str) -> Finding:
    return Finding.warning(f"subject.{code_of(name)}.{fault}", message, hint)
