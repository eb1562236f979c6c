"""The documents of a credential process: of the broker, and of Kubernetes (client-go credential plugins)."""

import json
import sys
from typing import Final

from broker.cli.output import show_json
from broker.delivery.directory import CURRENT
from broker.delivery.formats import MANIFEST, FileFormat
from broker.delivery.restoring import Published
from broker.errors import InputError

EXEC_CREDENTIAL: Final = "exec-credential"  # the format
EXEC_INFO: Final = "KUBERNETES_EXEC_INFO"  # the variable in which client-go says what it reads
_API: Final = "client.authentication.k8s.io/v1"
_APIS: Final = (_API, f"{_API}beta1")


def show_credential(found: Published) -> None:
    """Print what a credential process answers with `-o json`: no secret, but the paths of the files."""
    manifest = found.manifest
    document = {
        "version": 1,
        "success": True,
        "account": manifest.account,
        "application": manifest.application,
        "generation": manifest.generation,
        "expiration": manifest.expires,
        "not_after": manifest.not_after,
        "base_url": manifest.base_url,
        "client_id": _text(found, FileFormat.CLIENT_ID),
        "directory": str(found.path.with_name(CURRENT)),
        "files": {name: str(found.path / name) for name in sorted({*manifest.files, MANIFEST})},
    }
    show_json(document)


def show_exec_credential(found: Published, api: str) -> None:
    """Print the ExecCredential of version `api`, which holds the private key."""
    status = {
        "expirationTimestamp": found.manifest.expires,
        "clientCertificateData": _text(found, FileFormat.CERTIFICATE),
        "clientKeyData": _text(found, FileFormat.KEY),
    }
    show_json({"apiVersion": api, "kind": "ExecCredential", "status": status})


def exec_api(info: str) -> str:
    """Return the version of the API that `info`, the text of KUBERNETES_EXEC_INFO, names; raise `InputError`.

    Also for a terminal, which would show the key.
    """
    if sys.stdout.isatty():
        raise InputError("exec-credential would show the private key", hint="it is for kubectl: use -o json here")
    try:
        api = json.loads(info)["apiVersion"] if info else _API
    except (ValueError, TypeError, KeyError, RecursionError):
        api = ""
    if api not in _APIS:
        raise InputError(f"{EXEC_INFO} names no known version", hint=f"in the kubeconfig: apiVersion: {_API}")
    return str(api)


def _text(found: Published, file: FileFormat) -> str:
    return found.files[file.value].reveal().decode()
