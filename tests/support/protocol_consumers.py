"""Consumers that speak the service's protocol as docs/service.md says, hundreds of them in one process.

Each fetches a bundle, calls the partner with it, and waits for what happens; it keeps its bundle while the service or
its Vault is away, and tries again when the answer says so.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import secrets
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.replicas import ASKED

__all__ = ["Crowd"]

_TICK: Final = 0.02
_CALL: Final = aiohttp.ClientTimeout(total=60)
_WAIT: Final = aiohttp.ClientTimeout(total=None, sock_read=60)
_SPREAD: Final = 0.5  # seconds over which clients come back; the page asks for 2 and 10, for thousands of them


@dataclass
class Crowd:
    """The consumers of `tokens`, at the replicas of `addresses`. `faults` is what must not happen."""

    addresses: list[str]
    tokens: Sequence[str]
    folder: Path
    beside: int = 0  # bundles that other programs wait with
    bundles: dict[int, dict[str, Any]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    _contexts: dict[int, ssl.SSLContext] = field(default_factory=dict)
    _partner: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(32))

    async def __aenter__(self) -> Crowd:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._lives = [asyncio.create_task(self._live(number)) for number in range(len(self.tokens))]
        return self

    async def __aexit__(self, *_: object) -> None:
        for life in self._lives:
            life.cancel()
        ended = await asyncio.gather(*self._lives, return_exceptions=True)
        await self._session.close()
        self.faults += [repr(one) for one in ended if not isinstance(one, asyncio.CancelledError)]

    async def until(self, true: Callable[[], bool]) -> None:
        """Return once it is true; fail if a consumer had a fault."""
        while not true():
            assert not self.faults, self.faults[:3]
            assert not any(life.done() for life in self._lives), [life for life in self._lives if life.done()][:1]
            await asyncio.sleep(_TICK)

    @property
    def waits(self) -> int:
        """How many bundles are waited with."""
        return len(self.tokens) + self.beside

    def all_on(self, generation: int) -> bool:
        """Whether every consumer holds that generation, and has called the partner with it."""
        held = [bundle["generation"] for bundle in self.bundles.values()]
        return len(held) == len(self.tokens) and set(held) == {generation}

    async def call_partner(self) -> None:
        """Let every consumer call the partner with the bundle that it holds."""
        await asyncio.gather(*(self._call(number, bundle) for number, bundle in list(self.bundles.items())))

    async def _live(self, number: int) -> None:
        await self._fetch(number)
        while True:
            event = await self._wait(number)
            self.seen[event] += 1
            if event == "generation":
                await self._fetch(number)
            elif event in ("drain", "timeout", "cut"):
                await asyncio.sleep(random.uniform(0, _SPREAD))
            else:
                self.faults.append(f"consumer {number}: {event}")

    async def _fetch(self, number: int) -> None:
        """Fetch a bundle: tries of one fetch share an Idempotency-Key, so that they share a lease."""
        headers = self._headers(number) | {"Idempotency-Key": secrets.token_hex(8)}
        while True:
            try:
                url = f"{random.choice(self.addresses)}/v1/bundles"
                async with self._session.post(url, json=dict(ASKED), headers=headers, timeout=_CALL) as answer:
                    body = await answer.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError):
                self.seen["unreachable"] += 1
                await asyncio.sleep(random.uniform(0, _SPREAD))
                continue
            if answer.status == 201:
                break
            self.seen[str(answer.status)] += 1
            if "Retry-After" not in answer.headers:
                self.faults.append(f"consumer {number}: {answer.status} {body}")
            await asyncio.sleep(int(answer.headers.get("Retry-After", "1")))
        held = self.bundles.get(number)
        if held and body["generation"] <= held["generation"]:  # another replica may give the old one for a second
            self.seen["old"] += 1
        await self._call(number, body)
        self.bundles[number] = body

    async def _wait(self, number: int) -> str:
        bundle = self.bundles[number]
        body = {**ASKED, "generation": bundle["generation"], "lease": bundle["lease"]}
        url = f"{random.choice(self.addresses)}/v1/wait"
        try:
            async with self._session.post(url, json=body, headers=self._headers(number), timeout=_WAIT) as answer:
                text = await answer.text()
                if answer.status == 503:
                    await asyncio.sleep(int(answer.headers["Retry-After"]))
                    return "cut"
                return str(json.loads(text)["event"]) if answer.status == 200 else f"{answer.status} {text}"
        except (aiohttp.ClientError, TimeoutError, ValueError):  # a cut answer is no JSON
            return "cut"

    async def _call(self, number: int, bundle: dict[str, Any]) -> None:
        """Call the partner; a refusal is a fault."""
        login = base64.b64encode(f"{bundle['login']}:{bundle['secrets']['password']}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        url, query = f"{bundle['base_url']}/fleets", {"client_id": bundle["client_id"]}
        async with self._partner:
            context = self._context(bundle)
            async with self._session.get(url, params=query, headers=headers, ssl=context, timeout=_CALL) as answer:
                if answer.status != 200:
                    self.faults.append(f"consumer {number}: the partner says {answer.status}: {await answer.text()}")
        self.seen["partner"] += 1

    def _context(self, bundle: dict[str, Any]) -> ssl.SSLContext:
        """Return one for each generation: the key and the certificate are the account's."""
        generation = bundle["generation"]
        if generation not in self._contexts:
            made = ssl.create_default_context(cadata=bundle["trust"])
            file = self.folder / f"{generation}.pem"
            file.write_text(bundle["key"] + bundle["certificate"])
            made.load_cert_chain(file)
            self._contexts[generation] = made
        return self._contexts[generation]

    def _headers(self, number: int) -> dict[str, str]:
        return {"X-Vault-Token": self.tokens[number]}
