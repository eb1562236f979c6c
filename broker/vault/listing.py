"""Listings of the mount's folders, with foreign entries set apart.

Roles may create entries under any name in their folders. Every listing passes over an entry that cannot be the
broker's, and `foreign` reports it. One document that cannot be read does not hide the others.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from msgspec import Struct

from broker.errors import DeniedError, InputError, RefusedError, UnknownNameError
from broker.model.finding import Finding
from broker.vault import layout
from broker.vault.connection import Connection
from broker.vault.errors import MissingError, field_of, unclear

T = TypeVar("T")
_PAGE: Final = 1000  # documents in an answer with versions: a megabyte


class Folder(Struct, frozen=True):
    """A folder of the mount. `at` returns the path of a named entry (a folder ends in "/"), or raises `InputError`."""

    path: str
    at: Callable[[str], str]

    def holds(self, entry: str) -> bool:
        """Return whether `entry`, as Vault lists it, can be the broker's."""
        try:
            return self.at(entry.removesuffix("/")) == f"{self.path}/{entry}"
        except InputError:
            return False


class Documents(Struct, Generic[T], frozen=True):
    """The documents of a folder by name; `unread` has a finding for each that cannot be read."""

    found: Mapping[str, T]
    unread: Mapping[str, Finding]


def listed(vault: Connection, folder: Folder) -> tuple[str, ...]:
    """Return the names in `folder`, sorted, without foreign entries."""
    return tuple(entry.removesuffix("/") for entry in vault.list(folder.path) if folder.holds(entry))


def versions(vault: Connection, folder: Folder) -> Mapping[str, int] | None:
    """Return the newest version of each document in `folder`; None if Vault has no such listing.

    OpenBao has it. It is asked for in pages, since an answer also describes older versions.
    """
    path, found = f"{vault.settings.mount}/detailed-metadata/{folder.path}/", dict[str, int]()
    while True:
        try:
            answer = vault.ask("GET", path, {"list": "true", "limit": _PAGE, "after": max(found, default="")})
        except (MissingError, DeniedError):  # HashiCorp's Vault; policies of an earlier version
            if not found:
                return None
            break  # the last page was full
        page = field_of(answer, "data", "key_info") or {}
        try:
            found |= {name: int(facts["current_version"]) for name, facts in page.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise unclear(path) from None
        if len(page) < _PAGE:
            break
    return {name: number for name, number in found.items() if folder.holds(name)}


def documents(vault: Connection, folder: Folder, read: Callable[[str], T], code: str) -> Documents[T]:
    """Return the documents in `folder`; `code` is for findings. A `MissingError` of `read` means deleted."""
    found: dict[str, T] = {}
    unread: dict[str, Finding] = {}
    for name in listed(vault, folder):
        try:
            found[name] = read(name)
        except MissingError:
            continue
        except (RefusedError, UnknownNameError) as error:
            unread[name] = Finding.error(code, error.message, error.hint)
    return Documents(found, unread)


def foreign(vault: Connection, folders: Iterable[Folder]) -> Iterator[Finding]:
    """Yield a finding for each foreign entry in `folders`."""
    for folder in folders:
        for path in (f"{folder.path}/{entry}" for entry in vault.list(folder.path) if not folder.holds(entry)):
            yield Finding.error("vault.foreign", f"foreign entry {path}: no broker wrote it", _hint(vault, path))


def every_folder(vault: Connection) -> Iterator[Folder]:
    """Yield each folder that the broker lists, as the auditor may."""
    yield from (ACCOUNTS, CONSUMERS, LOCKS, PROFILES, RECORDS, STATEMENTS, CHAINS, ISSUED)
    yield from (entries_of(f"accounts/{name}") for name in listed(vault, CHAINS))
    yield from (entries_of(f"issued/{name}") for name in listed(vault, ISSUED))


def entries_of(chain: str) -> Folder:
    """Return the folder of a chain's entries; raise `InputError` for a name that no chain has."""
    return Folder(layout.chain(chain), lambda name: layout.evidence(chain, layout.place(name)))


def _statement(name: str) -> str:
    return layout.ANCHOR_KEY if f"{layout.HEADS}/{name}" == layout.ANCHOR_KEY else layout.head(layout.place(name))


def _lock(name: str) -> str:
    if f"locks/{name}" != layout.LOCK:
        raise InputError(f"the broker has no lock {name[:80]!r}")
    return layout.LOCK


def _hint(vault: Connection, path: str) -> str:
    """Return commands for a Vault administrator to look at the entry and remove it."""
    where = f"-mount={shlex.quote(vault.settings.mount)} {shlex.quote(path.removesuffix('/'))}"
    look, what, inside = ("list", "each NAME in it", "/NAME") if path.endswith("/") else ("get", "it", "")
    return (
        f"a Vault administrator looks at it with: bao kv {look} {where}; "
        f"and removes {what} with: bao kv metadata delete {where}{inside}"
    )


ACCOUNTS: Final = Folder(layout.ACCOUNTS, layout.account)
CONSUMERS: Final = Folder(layout.CONSUMERS, layout.consumer)
LOCKS: Final = Folder("locks", _lock)
PROFILES: Final = Folder(layout.PROFILES, layout.profile)
RECORDS: Final = Folder(layout.ROTATION, layout.rotation)
STATEMENTS: Final = Folder(layout.HEADS, _statement)
CHAINS: Final = Folder(layout.EVIDENCE, lambda name: f"{layout.chain(f'accounts/{name}')}/")
ISSUED: Final = Folder(layout.ISSUED, lambda name: f"{layout.chain(f'issued/{name}')}/")
