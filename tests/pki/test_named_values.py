"""Documents of named values: what kubectl and `bao kv get` write is read, and makes plain texts only."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import pytest

from broker.errors import BrokerError, InputError, RefusedError
from broker.pki.named_values import NamedValues, values_in
from broker.pki.pem import from_base64

PEM = "-----BEGIN X-----\nYQ==\n-----END X-----\n"
MANIFEST = f"""\
# as kubectl get secret -o yaml prints it
apiVersion: v1
data:
  password: {base64.b64encode(b"p w").decode()}
  tls.key: {base64.b64encode(PEM.encode()).decode()}

  # nothing
kind: Secret
metadata:
  name: acme
  labels: {{app: x}}
stringData:
  "user name": ''
type: Opaque
"""


def values(text: str) -> Mapping[str, bytes]:
    found = values_in(text.encode())
    assert found
    return found.values


def test_a_manifest_as_kubectl_writes_it() -> None:
    body = "".join(f"    {line}\n" for line in PEM.splitlines())
    text = MANIFEST.replace("  \"user name\": ''\n", f"  username: 'MZP1'\n  tls.crt: |\n{body}")
    expected = {"password": b"p w", "tls.key": PEM.encode(), "username": b"MZP1", "tls.crt": PEM.encode()}
    assert values(text) == expected
    assert values(text.replace("\n", "\r\n")) == expected
    found = values_in(text.encode())
    assert found
    assert found.removal == "kubectl delete secret acme"


@pytest.mark.parametrize(
    ("line", "value"),
    [("a: b c", "b c"), ('a: "x\\ty"', "x\ty"), ("a: >-\n    b\n    c", "b c"), ("{a: b}", "b"), ("a: '1'", "1")],
)
def test_every_form_of_a_text_is_read(line: str, value: str) -> None:
    assert values(f"kind: Secret\nstringData:\n  {line}\n") == {"a": value.encode()}


@pytest.mark.parametrize("line", ["a: &x b", "a: &x b\n  c: *x", "&x a: b", "a: *x"])
def test_anchors_and_aliases_are_refused(line: str) -> None:
    with pytest.raises(BrokerError, match=r"anchors or aliases|no YAML"):
        values_in(f"kind: Secret\nstringData:\n  {line}\n".encode())


def test_a_tag_makes_no_object() -> None:
    with pytest.raises(InputError, match="it is no YAML"):
        values_in(b"kind: Secret\nstringData:\n  a: !!python/object/apply:os.system [ls]\n")


@pytest.mark.parametrize(
    "text",
    [
        "kind: Secret\nstringData:\n  a: b\n   c: d\n",
        "kind: Secret\nstringData:\n  a: 1\n",
        "kind: Secret\nstringData:\n  a: 2026-99-99\n",
        "kind: Secret\nstringData: [a]\n",
        "kind: Secret\ndata:\n  a: '???'\n",
        "kind: Secret\ndata:\n  a: \x01\n",
        "kind: Secret\nx: " + "[" * 100_000,
        "kind: Secret\nx: " + "a" * 2_000_000,
        '{"kind": "Secret", "data": {"a": 1}}',
        '{"kind": "Secret", "data": {"a": "???"}}',
        '{"a": ',
        '{"a":' * 100_000,
        "{" + ",".join(f'"{n}": "x"' for n in range(300)) + "}",
    ],
)
def test_damaged_documents_are_refused(text: str) -> None:
    with pytest.raises((InputError, RefusedError)):
        values_in(text.encode())


def test_json_values_have_the_names_before_them() -> None:
    found = values_in(b'{"data": {"data": {"tls_key": "k", "n": 1}, "ca_chain": ["a", "b"]}, "lease_id": ""}')
    assert found
    chain = {"data.ca_chain.0": b"a", "data.ca_chain.1": b"b"}
    assert found.values == {"data.data.tls_key": b"k", "lease_id": b"", **chain}
    assert found.full_name("tls_key") == "data.data.tls_key"
    with pytest.raises(InputError, match="no value is called 'key'"):
        found.full_name("key")
    with pytest.raises(InputError, match="several values are called 'a'"):
        NamedValues({"x.a": b"", "y.a": b""}).full_name("a")


def test_a_list_has_one_secret() -> None:
    secret = '{"kind": "Secret", "data": {"a": "Yg=="}}'
    assert values(f'{{"kind": "List", "items": [{{"kind": "Service"}}, {secret}]}}') == {"a": b"b"}
    assert values("kind: List\nitems:\n- kind: Secret\n  data: {a: Yg==}\n---\nkind: Service\n") == {"a": b"b"}
    with pytest.raises(RefusedError, match="has 2 Secrets"):
        values_in(f'{{"kind": "List", "items": [{secret}, {secret}]}}'.encode())


@pytest.mark.parametrize("text", [PEM, "kind: Deployment\n", "", "MZP0000001"])
def test_other_text_is_no_document(text: str) -> None:
    assert values_in(text.encode()) is None


def test_base64_is_strict() -> None:
    assert from_base64(b"YQ ==\n") == b"a"
    assert from_base64(b"p@ss") is None
    assert from_base64(b"") is None


@pytest.mark.parametrize(
    ("metadata", "command"),
    [
        ({"name": "acme", "namespace": "prod"}, "kubectl delete secret acme -n prod"),
        ({"name": "a; b", "namespace": "$x"}, "kubectl delete secret NAME"),
        ([], "kubectl delete secret NAME"),
    ],
)
def test_the_secret_in_the_cluster_is_named(metadata: object, command: str) -> None:
    found = values_in(json.dumps({"kind": "Secret", "metadata": metadata, "data": {}}).encode())
    assert found
    assert found.removal == command
