"""Rules for the values of a subject that hold for every partner: length, characters, leftovers of a template.

The bounds are X.520's (RFC 5280, A.1), counted in characters; the pitfalls are those of the partner's published guide.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from broker.errors import InputError
from broker.model.finding import Finding, Severity
from broker.model.names import mail_address
from broker.model.subject import ATTRIBUTES, BOUNDS, Subject
from broker.pki.names import ReadName, shown

_OPENSSL_EMAIL: Final = 128
_LOOKED_AT: Final = 256  # characters of a value; longer ones have their own error
_TEMPLATE: Final = re.compile(
    r"<[^<>]*[^\W\d_][^<>]*>|\{\{.*?\}\}|\$\{[^}]*\}|\$\(.*?\)|%[A-Z_]+%|%\(\w+\)s|__[A-Z_]+__", re.IGNORECASE
)
_LABEL: Final = (
    r"(?:company|organi[sz]ation(?:al unit)?|department|unit|section|full|common|name|locality|city|town|state"
    r"(?: or province)?|province|region|country|e-?mail|login|mzp)"
)
# The whole value: brackets or a variable; a default of openssl or keytool; words for nothing; a label.
_LEFTOVER: Final = re.compile(
    r"\[.*\]|\(.*\)|\{.*\}|«.*»|[$@%:]\w+[@%:]?"
    r"|some-state|internet widgits pty ltd|default (?:city|company ltd)|my company(?: ltd)?|unknown"
    r"|null|none|nil|undefined|nan|n[/.]a\.?|not applicable|[-?*._]+|…|\w*x{4,}|x{3}"
    r"|to ?do|tbd|change[ _-]?me|foo(?:bar)?"
    rf"|your[ _-]?{_LABEL}\b.*|(?:the )?{_LABEL}(?:[ _-]?(?:name|address))?",
    re.IGNORECASE,
)
_LOST: Final = re.compile(r"[^\W\d_]\?+[^\W\d_]|(?:^|\s)\?+\w|\?{2}")  # letters that a program could not encode
_SAMPLE_ADDRESS: Final = re.compile(r".*@(?:example\.(?:com|net|org)|domain\.\w+|company\.com)", re.IGNORECASE)
_OTHER_NAMES: Final = {"E": "emailAddress", "EMAIL": "emailAddress", "MAIL": "emailAddress", "S": "ST", "SP": "ST"}
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_COUNTRIES: Final = (  # ISO 3166-1, and XK, which Kosovo uses
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA "
    "CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA "
    "GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP "
    "KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS "
    "MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS "
    "RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW "
    "TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW"
)
_PRINTABLE: Final = re.compile(r"[A-Za-z0-9 '()+,\-./:=?]*")
_Rule = tuple[str, object, str, str]  # fault, whether the value has it, message, hint
_WARNINGS: Final = ("openssl", "invisible", "decomposed", "uk")
_UNENCODABLE: Final = (".name", ".empty", ".long", ".control", ".surrogate", ".ascii", ".printable", ".short")


def code_of(attribute: str) -> str:
    """Return the word for `attribute` in a finding's code."""
    return {"emailAddress": "email"}.get(attribute, attribute.lower())


def unencodable(subject: Subject) -> tuple[Finding, ...]:
    """Return an error for everything in `subject` that openssl refuses to encode, and for control characters."""
    if not subject.attributes:
        return (Finding.error("subject.empty", "the subject has no attributes", "set at least the common name"),)
    found = (fault for name, value in subject.attributes for fault in value_faults(name, value))
    return tuple(fault for fault in found if fault.code.endswith(_UNENCODABLE))


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
    code = f"subject.{code_of(name)}"
    if name not in ATTRIBUTES:
        known = _OTHER_NAMES.get(name.upper()) or {a.upper(): a for a in ATTRIBUTES}.get(name.upper())
        hint = f"write {known}" if known else "use one of: " + ", ".join(ATTRIBUTES)
        yield Finding.error(f"{code}.name", f"'{name}' is no attribute of a subject", hint)
        return
    if not value:
        yield Finding.error(f"{code}.empty", f"{name} is empty", f"set {name}, or leave the attribute out")
        return
    for fault, wrong, what, hint in (*_text_rules(name, value), *_rules_of(name, value)):
        if wrong:
            severity = Severity.WARNING if fault in _WARNINGS else Severity.ERROR
            yield Finding(f"{code}.{fault}", severity, f"{name} {what}: {shown(value)}", hint)


def _text_rules(name: str, value: str) -> Iterable[_Rule]:
    """Return the rules for every attribute."""
    categories, bare, beginning = {unicodedata.category(c) for c in value}, value.strip(), value[:_LOOKED_AT]
    repaired, composed = _undone_double_encoding(value), unicodedata.normalize("NFC", beginning)
    copied, bound = _TEMPLATE.search(beginning) or _LEFTOVER.fullmatch(beginning.strip()), BOUNDS[name]
    bracket = not copied and (bare.startswith("<") or bare.endswith(">"))
    decomposed = composed != beginning
    lost = name != "emailAddress" and _LOST.search(beginning)
    long = f"has {len(value)} characters, the standard allows {bound}"
    return (
        ("long", len(value) > bound, long, f"shorten {name} to {bound} characters"),
        ("surrogate", "Cs" in categories, "holds half a character", f"type {name} again"),
        ("mojibake", repaired, "was encoded to UTF-8 twice", f"set {name} to {shown(repaired)}, with openssl -utf8"),
        ("mojibake", "\ufffd" in value, "holds the sign for a lost character", f"type {name} in a UTF-8 terminal"),
        ("mojibake", lost, "has '?' in place of a letter", f"type {name} again"),
        # Twice-encoded capitals hold C1 controls too, and controls are never encoded.
        ("control", categories & {"Cc", "Zl", "Zp"}, "holds a control character", f"type {name} again, on one line"),
        ("invisible", "Cf" in categories, "holds an invisible character", f"type {name} again in place of pasting it"),
        ("decomposed", decomposed, "has an accent that compares unequal", f"set {name} to {shown(composed)}"),
        ("blank", value != bare, "begins or ends with a blank", f"remove it from {name}"),
        ("placeholder", copied, "is still the template's", f"set {name} to your own"),
        ("bracket", bracket, "keeps a bracket of the guide's example", f"set {name} to {shown(value.strip(' <>'))}"),
    )


def _rules_of(name: str, value: str) -> Iterable[_Rule]:
    """Return the rules for one attribute only: the country, and the address."""
    if name == "C":
        upper, short = value.strip().upper(), len(value) < BOUNDS["C"]
        invalid = not short and not _COUNTRY.fullmatch(value)
        unassigned = not (invalid or short) and value not in f"{_COUNTRIES} UK"
        lower = upper != value and _COUNTRY.fullmatch(upper)
        hint = f"set C to {upper}" if lower else "use the two letters of ISO 3166, such as FR"
        return (
            ("printable", not _PRINTABLE.fullmatch(value), "holds characters that no country code has", hint),
            ("short", short, "has one letter instead of two", hint),
            ("invalid", invalid, "is not two upper-case letters", hint),
            ("unassigned", unassigned, "is no country's code", hint),
            ("uk", value == "UK", "is no code of ISO 3166, which writes 'GB'", "set C to GB"),
        )
    if name == "emailAddress":
        long, invalid = _OPENSSL_EMAIL < len(value) <= BOUNDS[name], value.isascii() and not _is_address(value)
        sample = _SAMPLE_ADDRESS.fullmatch(value)
        return (
            ("placeholder", sample, "is an example's, not yours", "give the address that the partner answers to"),
            ("openssl", long, f"is longer than the {_OPENSSL_EMAIL} characters of openssl", "use a shorter address"),
            ("ascii", not value.isascii(), "is not plain ASCII", "use an ASCII address (xn--… for the domain)"),
            ("invalid", invalid, "is not one address", "give a single address, such as fleet@company.example"),
        )
    return ()


def _is_address(value: str) -> bool:
    """Return whether it can be the sender of a CSR's mail. In a certificate its domain has a dot."""
    try:
        return "." in mail_address(value).rpartition("@")[2]
    except InputError:
        return False


def _undone_double_encoding(value: str) -> str:
    """Return what `value` was before openssl without -utf8, or Windows, read its UTF-8 as Latin-1; else ""."""
    for codec in () if value.isascii() else ("latin-1", "cp1252"):
        try:
            return value.encode(codec).decode("utf-8")
        except UnicodeError:
            continue
    return ""
