"""Configuration of the embedded server, which initialises itself."""

import json
from pathlib import Path
from typing import Final

from msgspec import Struct

from broker.embedded.home import SETUP_ROLE, Home

_EVERYTHING: Final = 'path "*" { capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"] }'


class Options(Struct, frozen=True):
    """Options of a server that is started: by default it has one unix socket, no audit log, and runs until stopped.

    `listener` is HCL of one more listener. A `tied` server runs at most as long as the process that started it.
    """

    audit: bool = False
    tied: bool = False
    listener: str = ""


DEFAULTS: Final = Options()


def rendered(home: Home, options: Options) -> str:
    """Return the server's configuration as HCL.

    The server initialises itself at its first start (OpenBao, "Declarative self-initialization"): it makes one login
    for setting up, with a secret-id that we chose before, and revokes the root token it used. So we never see one, and
    nothing can be lost between initialisation and saving its answer.
    """
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
    steps = (
        f'request "step-{number}" {{\n  operation = "update"\n  path = {_quoted(path)}\n  data = {{ {data} }}\n}}'
        for number, (path, data) in enumerate(requests, 1)
    )
    audit = f'audit "file" "file" {{\n  options {{ file_path = {_quoted(home.audit_log)} }}\n}}'
    blocks = (
        f'storage "pebbledb" {{ path = {_quoted(home.data)} }}',
        f'seal "static" {{\n  current_key_id = "1"\n  current_key = {_quoted(f"file://{home.unseal_key}")}\n}}',
        f'listener "unix" {{\n  address = {_quoted(home.socket)}\n  socket_mode = "0600"\n}}',
        f'disable_clustering = true\napi_addr = {_quoted(f"unix://{home.socket}")}\nlog_level = "warn"',
        *('initialize "setup" {', *steps, "}"),
        *(options.listener, audit if options.audit else ""),
    )
    return "\n".join(blocks)


def _quoted(text: str | Path) -> str:
    return json.dumps(str(text), ensure_ascii=False)  # for paths, a JSON string is an HCL string
