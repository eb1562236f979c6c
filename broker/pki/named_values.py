"""Read documents of named values: a JSON object, as `bao kv get -format=json` prints, or a Kubernetes Secret.

Of YAML only what kubectl writes of a Secret is read. The rest is refused, never guessed.
"""

import base64
import binascii
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from broker.errors import InputError, RefusedError
from broker.pki.pem import text_of

_MOST_VALUES: Final = 256
_SECRET: Final = re.compile(r"^kind:[ \t]*[\"']?Secret[\"']?[ \t]*$", re.MULTILINE)
_DNS: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_NEXT_DOCUMENT: Final = re.compile(r"^---.*\n", re.MULTILINE)
_MAP: Final = re.compile(r"^(data|stringData):[ \t]*\n((?:(?: [^\n]*|[ \t]*|#[^\n]*)\n)*)", re.MULTILINE)
_NO_ENTRY: Final = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*")
_ENTRY: Final = re.compile(
    r"""(?P<indent>[ ]+)(?P<quote>["']?)(?P<name>[\w.-]+)(?P=quote):[ \t]*
    (?: \|(?P<chomping>-?)[ \t]*\n(?P<block>(?:(?P=indent)[ ]+[^\n]*\n|[ \t]*\n)*)
      | "(?P<double>[^"\\\n]*)"[ \t]*\n
      | '(?P<single>[^'\n]*)'[ \t]*\n
      | (?P<plain>[A-Za-z0-9/+][^\s:\#"'{}\[\],&*!|>%@`]*)?[ \t]*\n )""",
    re.VERBOSE,
)
_AS_JSON: Final = "give it as JSON: kubectl get secret NAME -o json, or kubectl create --dry-run=client -o json -f FILE"


def values_in(data: bytes) -> Mapping[str, bytes] | None:
    """Return the named values in `data`, None if it is no such document; raise `InputError` or `RefusedError`.

    A value inside others has their names before its own: "data.tls_key".
    """
    text = text_of(data).replace("\r\n", "\n")
    if text.lstrip()[:1] == "{":
        found = dict(_of_json(_decoded(text)))
    elif _SECRET.search(text):
        found = dict(_of_secret(_one([_manifest(part) for part in _NEXT_DOCUMENT.split(text) if _SECRET.search(part)])))
    else:
        return None
    if len(found) > _MOST_VALUES:
        raise InputError(f"the document has {len(found)} values, more than {_MOST_VALUES}", hint="give a smaller one")
    return found


def removal_in_cluster(data: bytes) -> str:
    """Return the command that deletes the Kubernetes Secret in `data` where it is deployed; "" if it is none."""
    text = text_of(data)
    if not _SECRET.search(text) and not re.search(r'"kind":\s*"Secret"', text):
        return ""
    fields = {}
    for field in ("name", "namespace"):
        found = re.search(rf'^\s+"?{field}"?:\s*"?({_DNS.pattern})"?,?\s*$', text, re.MULTILINE)
        fields[field] = found[1] if found else ""
    namespace = f" -n {fields['namespace']}" if fields["namespace"] else ""
    return f"kubectl delete secret {fields['name'] or 'NAME'}{namespace}"


def full_name(values: Mapping[str, bytes], name: str) -> str:
    """Return the whole name of the one value called `name`, which may lack the names before it; raise `InputError`."""
    found = [path for path in values if path == name] or [path for path in values if path.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(values)) or "none"
    problem = "several values are" if found else "no value is"
    raise InputError(f"{problem} called {name[:80]!r}", hint=f"--map takes one of these names: {names[:400]}")


def from_base64(octets: bytes) -> bytes | None:
    """Return what `octets` are the base64 of, None if they are not base64."""
    try:
        return base64.b64decode(b"".join(octets.split()), validate=True) or None
    except binascii.Error:
        return None


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):  # without its text, which may quote a value
        raise InputError("the JSON document is damaged", hint="write it again") from None


def _of_json(document: Any) -> Iterator[tuple[str, bytes]]:
    items = document.get("items")
    manifests = [document, *(items if isinstance(items, list) else ())]
    secrets = [m for m in manifests if isinstance(m, dict) and m.get("kind") == "Secret"]
    yield from _of_secret(_one(secrets)) if secrets else _leaves(document)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, bytes]]:
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, str):
        yield path, value.encode()


def _one(secrets: list[dict[str, Any]]) -> dict[str, Any]:
    if len(secrets) > 1:
        raise RefusedError(f"the document has {len(secrets)} Secrets", hint="give a file with one of them")
    return secrets[0]


def _of_secret(manifest: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield the values of a Secret; those of `stringData` win, as in Kubernetes."""
    for field in ("data", "stringData"):
        values = manifest.get(field) or {}
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise InputError(f"the Secret's {field} is not a map of texts", hint=_AS_JSON)
        for name, value in values.items():
            octets = value.encode() if field == "stringData" else from_base64(value.encode())
            if octets is None and value.strip():
                raise InputError(f"the Secret's {name} is not base64", hint="values as they are belong into stringData")
            yield name, octets or b""


def _manifest(text: str) -> dict[str, Any]:
    maps = {field: _entries(field, body) for field, body in _MAP.findall(text if text.endswith("\n") else f"{text}\n")}
    there = {field for field in ("data", "stringData") if re.search(rf"^{field}:", text, re.MULTILINE)}
    if there != set(maps):
        raise RefusedError("the Secret is written in a form that is not read", hint=_AS_JSON)
    return maps


def _entries(field: str, body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at, indent = _end(_NO_ENTRY.match(body)), None
    while at < len(body):
        entry = _ENTRY.match(body, at)
        if entry is None or entry["name"] in found or entry["indent"] != (indent or entry["indent"]):
            line = body.count("\n", 0, at) + 1
            raise RefusedError(f"line {line} of the Secret's {field} has a form that is not read", hint=_AS_JSON)
        indent, at = entry["indent"], _end(_NO_ENTRY.match(body, entry.end()))
        found[entry["name"]] = _text(entry)
    return found


def _text(entry: re.Match[str]) -> str:
    if entry["block"] is None:
        return entry["double"] or entry["single"] or entry["plain"] or ""
    text = textwrap.dedent(entry["block"]).strip("\n")
    return text if entry["chomping"] else f"{text}\n"


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match else 0
