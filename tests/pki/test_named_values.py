"""Documents of named values: what kubectl and `bao kv get` write is read, the rest is refused and never guessed."""

from __future__ import annotations

import base64
import json

import pytest

from broker.errors import InputError, RefusedError
from broker.pki.named_values import from_base64, full_name, removal_in_cluster, values_in

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


def test_a_manifest_as_kubectl_writes_it() -> None:
    text = MANIFEST.replace(
        "  \"user name\": ''\n",
        "  username: 'MZP1'\n  tls.crt: |\n" + "".join(f"    {x}\n" for x in PEM.split("\n")[:-1]),
    )
    expected = {"password": b"p w", "tls.key": PEM.encode(), "username": b"MZP1", "tls.crt": PEM.encode()}
    assert values_in(text.encode()) == expected
    assert values_in(text.replace("\n", "\r\n").encode()) == expected
    assert removal_in_cluster(text.encode()) == "kubectl delete secret acme"


@pytest.mark.parametrize(
    "line",
    [
        "a: >",
        "a: b c",
        'a: "x\\n"',
        "a: !!binary YQ==",
        "a: &x b",
        "a: *x",
        "a: [b]",
        "a: {b: c}",
        "? a",
        "- a",
        "a: b: c",
        '"user name": x',
    ],
)
def test_other_yaml_is_refused(line: str) -> None:
    with pytest.raises(RefusedError, match="form that is not read") as refused:
        values_in(f"kind: Secret\nstringData:\n  {line}\n".encode())
    assert "kubectl get secret" in refused.value.hint


@pytest.mark.parametrize("text", ["kind: Secret\ndata: {a: YQ==}\n", "kind: Secret\ndata: &x\n  a: YQ==\n"])
def test_other_maps_are_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="form that is not read"):
        values_in(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "kind: Secret\nstringData:\n  a: b\n   c: d\n",
        "kind: Secret\nstringData:\n  a: b\n  a: c\n",
        "kind: Secret\ndata:\n  a: '???'\n",
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
    chain = {"data.ca_chain.0": b"a", "data.ca_chain.1": b"b"}
    assert found == {"data.data.tls_key": b"k", "lease_id": b"", **chain}
    assert full_name(found, "tls_key") == "data.data.tls_key"
    with pytest.raises(InputError, match="no value is called 'key'"):
        full_name(found, "key")
    with pytest.raises(InputError, match="several values are called 'a'"):
        full_name({"x.a": b"", "y.a": b""}, "a")


def test_a_list_has_one_secret() -> None:
    secret = '{"kind": "Secret", "data": {"a": "Yg=="}}'
    assert values_in(f'{{"kind": "List", "items": [{{"kind": "Service"}}, {secret}]}}'.encode()) == {"a": b"b"}
    with pytest.raises(RefusedError, match="has 2 Secrets"):
        values_in(f'{{"kind": "List", "items": [{secret}, {secret}]}}'.encode())


@pytest.mark.parametrize("text", [PEM, "kind: Deployment\n", "", "MZP0000001"])
def test_other_text_is_no_document(text: str) -> None:
    assert values_in(text.encode()) is None


def test_base64_is_strict() -> None:
    assert from_base64(b"YQ ==\n") == b"a"
    assert from_base64(b"p@ss") is None
    assert from_base64(b"") is None


def test_the_secret_in_the_cluster_is_named() -> None:
    manifest = {"kind": "Secret", "metadata": {"name": "acme", "namespace": "prod"}, "data": {}}
    assert removal_in_cluster(json.dumps(manifest, indent=2).encode()) == "kubectl delete secret acme -n prod"
    assert removal_in_cluster(json.dumps(manifest).encode()) == "kubectl delete secret NAME"
    assert removal_in_cluster(b"kind: Deployment\n") == ""
