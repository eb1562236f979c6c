"""The External Secrets Operator's webhook provider, as its page describes it: what a store and a secret ask for."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import httpx
import yaml

from broker.model.duration import parse_duration
from tests.support.deployed import DEPLOY

MANIFEST: Final = DEPLOY / "kubernetes" / "external-secrets.yaml"
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}", re.ASCII)  # of a Secret, as Kubernetes has it


class ExternalSecret:
    """The manifest's ExternalSecret and its SecretStore."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
        specs = {one["kind"]: one["spec"] for one in self.documents if "spec" in one}
        self._secret, self._webhook = specs["ExternalSecret"], specs["SecretStore"]["provider"]["webhook"]

    @cached_property
    def refreshes(self) -> timedelta:
        """The time between two requests."""
        return parse_duration(self._secret["refreshInterval"])

    def fetched(self, identity: str, ca: Path, places: Mapping[str, str]) -> dict[str, str]:
        """Send the request, `places` in place of those of the URL, and return the data of the Secret."""
        (source,) = self._secret["dataFrom"]
        (secret,) = self._webhook["secrets"]
        known = {"remoteRef": source["extract"], secret["name"]: {"token": identity}}
        url = _rendered(self._webhook["url"], {"remoteRef": {n: quote_plus(v) for n, v in source["extract"].items()}})
        for there, here in places.items():
            url = url.replace(there, here)
        headers = {name: _rendered(text, known) for name, text in self._webhook["headers"].items()}
        answer = httpx.get(
            url, headers=headers, verify=ssl.create_default_context(cafile=ca), trust_env=False, timeout=60
        )
        answer.raise_for_status()
        found: dict[str, str] = answer.json()
        assert all(_KEY.fullmatch(name) for name in found)
        return found


def _rendered(text: str, values: Mapping[str, Mapping[str, str]]) -> str:
    return re.sub(r"{{ \.(\w+)\.(\w+) }}", lambda match: values[match[1]][match[2]], text)
