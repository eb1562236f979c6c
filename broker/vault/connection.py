"""Connection to Vault or OpenBao: tokens, retries, and KV v2 under check-and-set.

Synchronous, and shared by threads: they share one session and take their token from one `TokenSource`. Code on an event
loop calls it in another thread, but for `create_on_loop`.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cached_property, partial
from typing import Final

import stamina

from broker.errors import ConflictError, DeniedError, RefusedError
from broker.model.compare_and_set import compare_and_set
from broker.model.duration import duration_text
from broker.model.secret import Secret
from broker.telemetry import log
from broker.vault.errors import (
    BadTokenError,
    Document,
    GoneError,
    LackingError,
    MissingError,
    OwnDenialError,
    PassingError,
    field_of,
    names_in,
    unclear,
)
from broker.vault.layout import BOUNDS_AS_GRANTED, DESCRIPTION
from broker.vault.settings import VaultSettings
from broker.vault.tokens import TokenSource
from broker.vault.transport import SEAL_STATUS, Post, Seen, Transport


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    """Log a retry in place of stamina's own hooks, which print to standard output if structlog is installed."""
    log.debug("vault retry", number=details.retry_num, seconds=details.wait_for, error=type(details.caused_by).__name__)


stamina.instrumentation.set_on_retry_hooks([_log_retry])

ADMINISTRATOR: Final = "the administrator"
ADMIN_HINT: Final = "broker vault setup --print admin-policy"
_NEEDS: Final = {"GET": "read", "LIST": "list", "DELETE": "delete"}
_MAY_CREATE: Final = re.compile(r"/(role|metadata|config)(/|$)")  # where Vault tells creating from updating
_MAY_WANT_SUDO: Final = re.compile(r"sys/(auth|mounts|policies)/")
_TOLERANCE: Final = timedelta(minutes=5)  # between our clock and Vault's
_LONG: Final = 6  # attempts: the first five take under two seconds


class Phase(Enum):
    """Moment of an observer's call: before a write is sent, or after it succeeded."""

    BEFORE = "before"
    AFTER = "after"


# Called at every write with its API path: tests count writes, or kill the process at one. An exception ends the write
Observer = Callable[[Phase, str], None]


def unobserved(phase: Phase, path: str) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document of KV v2 and its version."""

    data: Document = field(repr=False)  # keys and passwords are documents too
    version: int
    made_at: datetime | None = field(default=None, compare=False)  # by Vault's clock; None if it does not say


@dataclass(eq=False, repr=False)
class Connection:
    """KV v2 under one mount, and the rest of Vault's API by `call` and `ask`.

    `holder` names the owner of the token in errors, such as "role rotator". Paths of `read`, `write` and the like are
    relative to the mount, as `layout` makes them. Every method raises `VaultUnavailableError` when patience runs out,
    `DeniedError`, and the errors in its first line.
    """

    settings: VaultSettings
    tokens: TokenSource | None = None
    observer: Observer = unobserved
    seen: Seen = field(default_factory=Seen)
    holder: str = "the broker"

    def __post_init__(self) -> None:
        self._transport = Transport(self.settings, self.seen)

    def read(self, path: str, version: int = 0) -> Stored:
        """Return `version` of the document at `path`, the newest with 0; raise `MissingError`."""
        answer = self.ask("GET", self._kv("data", path), {"version": version} if version else None)
        data, version = field_of(answer, "data", "data"), field_of(answer, "data", "metadata", "version")
        if not isinstance(data, Mapping | None) or not isinstance(version, int):
            raise unclear(path)
        return Stored(data or {}, version, _time(field_of(answer, "data", "metadata", "created_time")))  # a null too

    def read_or_none(self, path: str) -> Stored | None:
        """Return the newest version at `path`, or None if nothing is stored."""
        try:
            return self.read(path)
        except MissingError:
            return None

    def write(self, path: str, data: Document, *, replacing: int) -> None:
        """Store `data` as the version after `replacing` (0: nothing yet); raise `ConflictError`.

        A write whose answer was lost is sent again, and then conflicts with itself: `change` settles that. On a mount
        that others use too, a new document gets its own bounds. A process that is killed between the two writes leaves
        a document without bounds; the next `setup` sets them.
        """
        needs_bounds = replacing == 0 and self._is_shared
        self._put(path, data, replacing)
        if needs_bounds:
            with suppress(DeniedError):  # the policies are older than the adopted mount; `setup` renews them
                self.call("POST", self._kv("metadata", path), BOUNDS_AS_GRANTED)

    def create(self, path: str, data: Document) -> None:
        """Store `data`, which is written once; raise `ConflictError` if something was stored before."""
        try:
            self._put(path, data, 0)
        except DeniedError:
            # A role with `create` alone is denied overwriting before CAS is looked at
            with suppress(DeniedError):
                if self.versions(path):
                    raise ConflictError(f"{path} exists already") from None
            raise

    async def create_on_loop(self, path: str, data: Document, post: Post) -> bool:
        """Create a document on an event loop, by one request at most. Return whether it is known to be stored.

        If not, it may be there all the same. `create` comes next, in a thread.
        """
        token = self.tokens.at_hand() if self.tokens else None
        if token is None:
            return False
        api_path = self._kv("data", path)
        self.observer(Phase.BEFORE, api_path)
        answer = await self._transport.post(api_path, _put_body(data, 0), token, post)
        if not isinstance(field_of(answer, "data", "version"), int):
            return False
        self.observer(Phase.AFTER, api_path)
        return True

    def adopt(self, path: str, make: Callable[[], Document]) -> Document:
        """Return the document at `path`, which is written once. If there is none, create it: the first writer wins."""
        stored = self.read_or_none(path)
        if stored is None:
            with suppress(ConflictError):
                self.create(path, make())
            stored = self._read_soon(path)
        return stored.data

    def _read_soon(self, path: str) -> Stored:
        """Return the document, which somebody has just stored: a standby may not have it yet.

        One that was destroyed meanwhile does not come back: `GoneError` is raised without a wait.
        """

        def may_come(error: Exception) -> bool:
            return isinstance(error, MissingError) and not isinstance(error, GoneError)

        for attempt in stamina.retry_context(
            may_come, attempts=None, timeout=self.settings.patience, wait_initial=0.05, wait_max=0.5
        ):
            with attempt:
                return self.read(path)
        raise AssertionError("stamina ends by returning or raising")

    def change(self, path: str, change: Callable[[Document | None], Document | None]) -> Document:
        """Apply the pure `change` to the document at `path` (None: nothing yet), under compare-and-set; return the new.

        A write whose answer was lost is settled by reading the version that it would have made. Raise `ConflictError`
        if others keep writing.
        """

        def read() -> tuple[Document | None, int]:
            stored = self.read_or_none(path)
            return (stored.data, stored.version) if stored else (None, 0)

        def write(document: Document | None, version: int) -> None:
            self.write(path, document or {}, replacing=version)

        return compare_and_set(path, read, write, partial(self.landed, path), change) or {}

    def landed(self, path: str, data: Document | None, version: int) -> bool:
        """Return whether the version after `version` is `data`, even if others have written since.

        False if that version is not kept any more: as many writes followed it as the mount keeps versions.
        """
        try:
            return self.read(path, version=version + 1).data == data
        except MissingError:
            return False

    def list(self, path: str) -> tuple[str, ...]:
        """Return the names under `path`, sorted; folders end in "/". Nothing there is no error."""
        try:
            return tuple(sorted(names_in(self.ask("LIST", self._kv("metadata", path)), path)))
        except MissingError:
            return ()

    def versions(self, path: str) -> Mapping[int, bool]:
        """Return the kept versions of `path` and whether each still holds data."""
        try:
            found = field_of(self.ask("GET", self._kv("metadata", path)), "data", "versions")
        except MissingError:
            return {}
        try:
            return {int(number): not (v["destroyed"] or v["deletion_time"]) for number, v in found.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise unclear(path) from None

    def destroy_all(self, path: str) -> None:
        """Destroy the data of every version. The number stays taken, so `create` never gives it out again.

        Destroying it twice is no error. Success is read back, not believed: a secret that survives here would stay for
        ever. Backups and snapshots of Vault may still hold it.
        """
        self._destroy(path, sorted(self.versions(path)) or [1])  # a node that is behind may show none

    def destroy_older(self, path: str) -> None:
        """Destroy the data of every version but the newest, as `destroy_all` does."""
        older = sorted(number for number, alive in self.versions(path).items() if alive)[:-1]
        if older:
            self._destroy(path, older)

    def _destroy(self, path: str, numbers: Sequence[int]) -> None:
        with suppress(MissingError):
            self.call("POST", self._kv("destroy", path), {"versions": numbers})
        left = self.versions(path)
        if any(left.get(number) for number in numbers):
            raise unclear(path)

    def call(self, method: str, api_path: str, body: Document | None = None) -> Document:
        """Send a request that changes something; return Vault's answer, empty if it has no body.

        `api_path` follows `/v1/`. Raises `InvalidError` if Vault finds the request invalid.
        """
        self.observer(Phase.BEFORE, api_path)
        answer = self._patiently(method, api_path, body, None)
        self.observer(Phase.AFTER, api_path)
        return answer

    def ask(
        self, method: str, api_path: str, body: Document | None = None, *, token: Secret[str] | None = None
    ) -> Document:
        """Send a request that changes no data of the broker: a read, login or look-up. Otherwise as `call`.

        `token` replaces the connection's own; it is neither renewed nor replaced by another.
        """
        return self._patiently(method, api_path, body, token)

    def revoke(self, token: Secret[str]) -> None:
        """Revoke `token`, in one attempt: a program that ends does not wait for a Vault that is away."""
        self._transport.send("POST", "auth/token/revoke-self", None, token)

    @property
    def their_clock(self) -> datetime | None:
        """Vault's clock at its newest answer, to the second; None if the answer has no date."""
        try:
            return parsedate_to_datetime(self.seen.date).astimezone(UTC)
        except (TypeError, ValueError):  # no date, or an invalid one
            return None

    def require_true_clock(self) -> None:
        """Raise `RefusedError` if this machine's clock is minutes away from Vault's, by Vault's newest answer.

        Stored documents are dated by it and read on other machines, and certificates are checked by it. An answer
        without a date passes. If Vault never answered this process, it is asked.
        """
        if not self.seen.ours:
            self.ask("GET", SEAL_STATUS)
        theirs = self.their_clock
        if theirs is None:
            return
        ahead = datetime.fromtimestamp(self.seen.ours, UTC) - theirs
        if abs(ahead) > _TOLERANCE:
            way = "ahead of" if ahead > timedelta(0) else "behind"
            message = f"this machine's clock is {duration_text(abs(ahead))} {way} Vault's; refusing to use it"
            hint = "timedatectl shows the clock: correct the wrong one, here or on the host of Vault"
            raise RefusedError(message, hint=hint)

    def close(self) -> None:
        """Revoke the token if this connection's login made it, unless Vault is away, and close the session."""
        if self.tokens is not None and not self.seen.away:
            self.tokens.close()
        self._transport.close()

    def _put(self, path: str, data: Document, replacing: int) -> None:
        answer = self.call("POST", self._kv("data", path), _put_body(data, replacing))
        if not isinstance(field_of(answer, "data", "version"), int):
            raise unclear(path)

    @cached_property
    def _is_shared(self) -> bool:
        """Return whether others use the mount too. Vault answers this to every token with a right below the mount."""
        try:
            answer = self.ask("GET", f"sys/internal/ui/mounts/{self.settings.mount}")
        except DeniedError:
            return False
        return field_of(answer, "data", "description") not in (None, DESCRIPTION)

    def _kv(self, kind: str, path: str) -> str:
        return f"{self.settings.mount}/{kind}/{path}"

    def _patiently(self, method: str, path: str, body: Document | None, token: Secret[str] | None) -> Document:
        patience = self.settings.patience
        attempts = stamina.retry_context(self._pause, None, patience, wait_initial=0.05, wait_max=2.0, wait_jitter=0.1)
        try:
            for attempt in attempts:
                if attempt.num == _LONG:
                    limit = duration_text(timedelta(seconds=patience))
                    self.seen.wait(f"{self.settings.whereabouts} is away: waiting up to {limit} for it")
                with attempt:
                    if token or not self.tokens:
                        answer = self._transport.send(method, path, body, token)
                    else:
                        answer = self._send_as_ourselves(method, path, body, self.tokens)
                    self.seen.away = False
                    return answer
        except PassingError:
            self.seen.away = True
            raise
        raise AssertionError("stamina ends by returning or raising")

    def _pause(self, error: Exception) -> bool | float:
        if not isinstance(error, PassingError) or error.wait > self.settings.patience:
            return False
        return error.wait or True

    def _send_as_ourselves(self, method: str, path: str, body: Document | None, tokens: TokenSource) -> Document:
        asked = f"{path}/" if method == "LIST" else path
        for is_last in (False, True):
            token = tokens.token()
            try:
                return self._transport.send(method, path, body, token)
            except DeniedError as error:
                # Vault denies a dead token and a live one without the right in the same words: ask which it is
                granted = self._granted(asked, token)
                if granted and isinstance(error, BadTokenError):  # it is about a token in `body`
                    raise
                if granted or is_last or not tokens.replace(token):
                    raise self._denied(asked, granted, _lacked(method, asked, body, granted)) from None
        raise AssertionError("the second denial was raised")

    def _granted(self, path: str, token: Secret[str]) -> Collection[str]:
        """Return the capabilities of `token` on `path`, nothing if it is dead: a live one has at least "deny"."""
        try:
            answer = self._transport.send("POST", "sys/capabilities-self", {"paths": [path]}, token)
        except DeniedError:
            return ()
        return field_of(answer, "data", path) or ("deny",)

    def _denied(self, path: str, granted: Collection[str], lacks: str) -> DeniedError:
        """Return the error that names holder, path, the missing capability, and a command that helps."""
        if not granted:
            message = (
                f"Vault denies {path} to {self.holder}: its token is expired or revoked, or lacks sys/capabilities-self"
            )
            return OwnDenialError(message, hint="log in again: bao login, or vault login")
        hint = ADMIN_HINT if self.holder == ADMINISTRATOR else "broker doctor"
        if not lacks:
            message = f"Vault denies this request for {path} to {self.holder}, which has the right"
            return OwnDenialError(message, hint=hint)
        return LackingError(f"{self.holder} lacks {lacks} on {path}", hint=hint)


def _put_body(data: Document, replacing: int) -> Document:
    return {"data": dict(data), "options": {"cas": replacing}}


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def _lacked(method: str, path: str, body: Document | None, granted: Collection[str]) -> str:
    """Return the capability that a denied request needs beside `granted`; "" if it has all that are known."""
    version = field_of(body or {}, "options", "cas")
    if method in _NEEDS:
        needed = [_NEEDS[method]]
    elif version is None and not _MAY_CREATE.search(path):
        needed = ["update"]
    else:
        needed = ["create", "update"] if version == 0 else ["update", "create"]
    return next((name for name in needed if name not in granted), "sudo" if _MAY_WANT_SUDO.match(path) else "")
