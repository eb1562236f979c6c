"""Read documents of named values: a JSON object, as `bao kv get -format=json` prints, or a Kubernetes Secret."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from broker.errors import InputError, RefusedError
from broker.pki.pem import from_base64, text_of

try:
    import yaml
except ImportError:  # an extra
    yaml = None

_MOST_VALUES: Final = 256
_MOST_YAML: Final = 1024 * 1024  # characters; Kubernetes stores no larger Secret
_SECRET: Final = re.compile(r"^[ \t-]*kind:[ \t]*[\"']?Secret\b", re.MULTILINE)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_NO_YAML: Final = (
    "this needs PyYAML, which is not installed (pip install '.[server]' in the checkout); "
    "or give the Secret as JSON: kubectl get secret NAME -o json"
)


@dataclass(frozen=True, slots=True)
class NamedValues:
    """The values of a document; `removal` is the command that deletes a Secret where it is deployed.

    A value inside others has their names before its own: "data.tls_key".
    """

    values: Mapping[str, bytes] = field(repr=False)
    removal: str = ""

    def full_name(self, name: str) -> str:
        """Return the whole name of the one value called `name`, which may lack the names before it."""
        found = [path for path in self.values if path == name]
        found = found or [path for path in self.values if path.endswith(f".{name}")]
        if len(found) == 1:
            return found[0]
        names = ", ".join(sorted(self.values)) or "none"
        problem = "several values are" if found else "no value is"
        raise InputError(f"{problem} called {name[:80]!r}", hint=f"--map takes one of these names: {names[:400]}")


def values_in(data: bytes) -> NamedValues | None:
    """Return the named values in `data`, None if it is no such document; raise `InputError` or `RefusedError`."""
    text = text_of(data)
    is_json = text.lstrip()[:1] == "{"
    if not is_json and not _SECRET.search(text):
        return None
    documents = [_json(text)] if is_json else _yaml(text)
    secrets = [m for document in documents for m in _manifests(document) if m.get("kind") == "Secret"]
    if len(secrets) > 1:
        raise RefusedError(f"the document has {len(secrets)} Secrets", hint="give a file with one of them")
    found = dict(_of_secret(secrets[0]) if secrets else _leaves(documents[0] if is_json else {}))
    if len(found) > _MOST_VALUES:
        raise InputError(f"the document has {len(found)} values, more than {_MOST_VALUES}", hint="give a smaller one")
    return NamedValues(found, _removal(secrets[0]) if secrets else "")


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):  # without its text, which may quote a value
        raise InputError("the JSON document is damaged", hint="write it again") from None


def _yaml(text: str) -> Sequence[Any]:
    if yaml is None:
        raise RefusedError("this is a Kubernetes Secret in YAML", hint=_NO_YAML)
    if len(text) > _MOST_YAML:
        raise InputError(f"the Secret has more than {_MOST_YAML} characters", hint="is this the right file?")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if any(getattr(event, "anchor", None) for event in yaml.parse(text, loader)):  # of an alias too
            raise RefusedError("the Secret has anchors or aliases, which are not read", hint="write the values out")
        return list(yaml.load_all(text, loader))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):  # the same
        raise InputError("the Secret is damaged: it is no YAML", hint="write it again") from None


def _manifests(document: Any) -> Iterator[dict[str, Any]]:
    """Yield a manifest and those in a list of them."""
    items = document.get("items") if isinstance(document, dict) else None
    yield from (m for m in (document, *(items if isinstance(items, list) else ())) if isinstance(m, dict))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, bytes]]:
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, str):
        yield path, value.encode()


def _of_secret(manifest: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield the values of a Secret; those of `stringData` win, as in Kubernetes."""
    for field_ in ("data", "stringData"):
        values = manifest.get(field_) or {}
        if not isinstance(values, dict) or not all(isinstance(v, str) for pair in values.items() for v in pair):
            raise InputError(f"the Secret's {field_} is not a map of texts", hint="write numbers in quotes")
        for name, value in values.items():
            octets = from_base64(value) if field_ == "data" else value.encode()
            if octets is None and value.strip():
                raise InputError(f"the Secret's {name} is not base64", hint="values as they are belong into stringData")
            yield name, octets or b""


def _removal(manifest: dict[str, Any]) -> str:
    metadata = manifest.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    name, namespace = (str(named.get(field_, "")) for field_ in ("name", "namespace"))
    where = f" -n {namespace}" if _NAME.fullmatch(namespace) else ""
    return f"kubectl delete secret {name if _NAME.fullmatch(name) else 'NAME'}{where}"
