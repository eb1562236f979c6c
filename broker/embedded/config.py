"""The configuration of the embedded server, and how it initialises itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.embedded.home import SETUP_ROLE, Home

__all__ = ["Loopback", "Options", "rendered"]

_EVERYTHING: Final = 'path "*" { capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"] }'


@dataclass(frozen=True, slots=True)
class Loopback:
    """A TLS listener on 127.0.0.1 beside the unix socket; with `client_ca` it wants a certificate of that CA."""

    port: int
    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What may differ between embedded vaults. Without any: one unix socket, no audit log."""

    loopback: Loopback | None = None
    audit: bool = False


def rendered(home: Home, options: Options) -> str:
    """Return the server's configuration as HCL.

    The server initialises itself at its first start (OpenBao, "Declarative self-initialization"): it makes one login
    for setting up, whose secret-id we chose before, and revokes the root token it used. So none is ever seen by us,
    and there is nothing to lose between initialisation and saving what it answered.
    """
    blocks = [
        f'storage "pebbledb" {{ path = {_quoted(home.data)} }}',
        f'seal "static" {{\n  current_key_id = "1"\n  current_key = {_quoted(f"file://{home.unseal_key}")}\n}}',
        f'listener "unix" {{\n  address = {_quoted(home.socket)}\n  socket_mode = "0600"\n}}',
        "disable_clustering = true",
        f"api_addr = {_quoted(f'unix://{home.socket}')}",
        'log_level = "warn"',
        _initialization(home),
    ]
    if options.loopback:
        blocks.append(_listener(options.loopback))
    if options.audit:
        blocks.append(f'audit "file" "file" {{\n  options {{ file_path = {_quoted(home.audit_log)} }}\n}}')
    return "\n".join(blocks) + "\n"


def _listener(loopback: Loopback) -> str:
    lines = [
        f'address = "127.0.0.1:{loopback.port}"',
        f"tls_cert_file = {_quoted(loopback.certificate)}",
        f"tls_key_file = {_quoted(loopback.key)}",
    ]
    if loopback.client_ca:
        lines += ["tls_require_and_verify_client_cert = true", f"tls_client_ca_file = {_quoted(loopback.client_ca)}"]
    return 'listener "tcp" {\n  ' + "\n  ".join(lines) + "\n}"


def _initialization(home: Home) -> str:
    role = f"auth/{SETUP_ROLE}/role/{SETUP_ROLE}"
    lifetime = 'token_ttl = "10m", token_max_ttl = "30m", token_no_default_policy = true'
    secret = f'{{ eval_type = "string", eval_source = "file", path = {_quoted(home.setup_secret)} }}'
    requests = (
        (f"sys/policies/acl/{SETUP_ROLE}", f"policy = {_quoted(_EVERYTHING)}"),
        (f"sys/auth/{SETUP_ROLE}", 'type = "approle"'),
        (role, f"token_policies = {_quoted(SETUP_ROLE)}, {lifetime}"),
        (f"{role}/role-id", f"role_id = {_quoted(SETUP_ROLE)}"),
        (f"{role}/custom-secret-id", f"secret_id = {secret}"),
    )
    return "\n".join(
        [
            'initialize "setup" {',
            *(
                f'  request "step-{number}" {{\n    operation = "update"\n    path = {_quoted(path)}\n'
                f"    data = {{ {data} }}\n  }}"
                for number, (path, data) in enumerate(requests, 1)
            ),
            "}",
        ]
    )


def _quoted(text: str | Path) -> str:
    return json.dumps(str(text), ensure_ascii=False)  # HCL's strings are JSON's, as far as paths go
