"""The operations of the Fleet Owner API: one table of method, path and function; bodies are HAL.

Monitors and callbacks are kept in memory, for each login. Remote commands are accepted and have no effect.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import urlencode

import msgspec

from partner_standin.fleet import Fleet, Vehicle, World
from partner_standin.paging import HIGH_FREQUENCY, LIST, collection
from partner_standin.responses import Response, hal

T = TypeVar("T")
Document: TypeAlias = Mapping[str, Any]


class NotFoundError(Exception):
    """This login has no such resource."""


class WrongBodyError(Exception):
    """The body is not the JSON object that this operation takes."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that passed the gate. `path` is below the base, whose own path is `prefix`; `origin` is its host."""

    login: str
    method: str
    path: str
    prefix: str
    origin: str
    parameters: Mapping[str, str]
    body: bytes = b""
    echo: str = ""  # the client_id to repeat in links

    def link(self, path: str) -> str:
        """Return the absolute href of a path (with query) below the base."""
        joint = "&" if "?" in path else "?"
        echo = f"{joint}{urlencode({'client_id': self.echo})}" if self.echo else ""
        return f"{self.origin}{self.prefix}{path}{echo}"


Found: TypeAlias = Mapping[str, str]
Run: TypeAlias = "Callable[[Operations, Call, Found], Response]"


class Operations:
    """Answer calls with data generated from `seed`. Thread-safe."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._worlds: dict[str, World] = {}
        self._kept: dict[tuple[str, ...], dict[str, Document]] = {}

    def answer(self, call: Call) -> Response | None:
        """Return the answer; None if no operation has this method. Raise `NotFoundError`, `WrongBodyError`.

        `paging.BadPageError` passes through.
        """
        segments = call.path.strip("/").split("/")
        matches = [(op, found) for op in OPERATIONS if (found := op.match(segments)) is not None]
        if not matches:
            raise NotFoundError
        for operation, found in matches:
            if operation.method == call.method:
                return operation.run(self, call, found)
        return None

    def world(self, login: str) -> World:
        """Return the data of `login`."""
        with self._lock:
            if login not in self._worlds:
                self._worlds[login] = World(self._seed, login)
            return self._worlds[login]

    def fleet(self, call: Call, found: Found) -> Fleet:
        """Return the fleet that the path names or raise `NotFoundError`."""
        return _existing(self.world(call.login).fleet(found["fid"]))

    def vehicle(self, call: Call, found: Found) -> Vehicle:
        """Return the vehicle that the path names, by VIN or within its fleet, or raise `NotFoundError`."""
        if "vin" in found:
            return _existing(self.world(call.login).vehicle(found["vin"]))
        return _existing(self.fleet(call, found).vehicle(found["vid"]))

    def kept(self, call: Call, found: Found, kind: str) -> dict[str, Document]:
        """Return the monitors or callbacks of a fleet, to read or change."""
        fleet = self.fleet(call, found)
        with self._lock:
            return self._kept.setdefault((call.login, fleet.id, kind), {})


@dataclass(frozen=True, slots=True)
class _Operation:
    """A row of the table."""

    method: str
    template: tuple[str, ...]
    run: Run

    def match(self, segments: Sequence[str]) -> Found | None:
        """Return the values of the template's names in `segments`, or None if it does not match."""
        if len(segments) != len(self.template):
            return None
        pairs = list(zip(self.template, segments, strict=True))
        if any(not name.startswith("{") and name != segment for name, segment in pairs):
            return None
        return {name[1:-1]: segment for name, segment in pairs if name.startswith("{")}


def _existing(found: T | None) -> T:
    if found is None:
        raise NotFoundError
    return found


def _one(call: Call, document: Document) -> Response:
    return hal({"_links": {"self": {"href": call.link(call.path)}}, **document})


def _many(call: Call, name: str, items: Sequence[Document], most: int = LIST) -> Response:
    linked = [_linked(call, item) for item in items] if items and "id" in items[0] else items
    return hal(collection(name, linked, call.parameters, path=call.path, link=call.link, most=most))


def _linked(call: Call, item: Document) -> Document:
    return {"_links": {"self": {"href": call.link(f"{call.path}/{item['id']}")}}, **item}


def _named(items: Sequence[Document], number: str) -> Document:
    return _existing(next((item for item in items if item["id"] == number), None))


def _sent(call: Call) -> Document:
    try:
        return msgspec.json.decode(call.body, type=dict[str, Any])
    except msgspec.DecodeError:
        raise WrongBodyError from None


def _part(read: Callable[[Vehicle], Document]) -> Run:
    return lambda ops, call, found: _one(call, read(ops.vehicle(call, found)))


def _list(name: str, read: Callable[[Vehicle], Sequence[Document]], most: int = LIST) -> Run:
    return lambda ops, call, found: _many(call, name, read(ops.vehicle(call, found)), most)


def _of_trip(name: str, read: Callable[[Vehicle], Sequence[Document]], most: int = LIST) -> Run:
    def run(ops: Operations, call: Call, found: Found) -> Response:
        vehicle = ops.vehicle(call, found)
        _named(vehicle.trips, found["tid"])
        return _many(call, name, read(vehicle), most)

    return run


def _of_fleet(name: str, read: Callable[[Fleet], Sequence[Document]]) -> Run:
    return lambda ops, call, found: _many(call, name, read(ops.fleet(call, found)))


def _create(kind: str) -> Run:
    def run(ops: Operations, call: Call, found: Found) -> Response:
        document = _sent(call)
        number = uuid.uuid4().hex[:24]
        ops.kept(call, found, kind)[number] = {**document, "id": number}
        return hal({"id": number, "_links": {"self": {"href": call.link(f"{call.path}/{number}")}}}, 202)

    return run


def _read(kind: str) -> Run:
    return lambda ops, call, found: _one(call, _existing(ops.kept(call, found, kind).get(found["id"])))


def _replace(kind: str) -> Run:
    def run(ops: Operations, call: Call, found: Found) -> Response:
        kept = ops.kept(call, found, kind)
        _existing(kept.get(found["id"]))
        kept[found["id"]] = {**_sent(call), "id": found["id"]}
        return hal({"id": found["id"]}, 202)

    return run


def _delete(kind: str) -> Run:
    def run(ops: Operations, call: Call, found: Found) -> Response:
        _existing(ops.kept(call, found, kind).pop(found["id"], None))
        return Response(204)

    return run


def _remote(ops: Operations, call: Call, found: Found) -> Response:
    vehicle = ops.vehicle(call, found)
    _existing(ops.kept(call, found, "callbacks").get(found["cbid"]))
    _sent(call)
    return hal({"remoteActionId": uuid.uuid4().hex, "type": "Accepted", "vin": vehicle.vin}, 202)


def _keeping(path: str, kind: str) -> tuple[tuple[str, str, Run], ...]:
    return (
        ("GET", path, lambda ops, call, found: _many(call, kind, tuple(ops.kept(call, found, kind).values()))),
        ("POST", path, _create(kind)),
        ("GET", f"{path}/{{id}}", _read(kind)),
        ("PUT", f"{path}/{{id}}", _replace(kind)),
        ("DELETE", f"{path}/{{id}}", _delete(kind)),
    )


def _nothing(_vehicle: Vehicle) -> Sequence[Document]:
    return ()


_V: Final = "fleets/{fid}/vehicles/{vid}"
_TABLE: Final[tuple[tuple[str, str, Run], ...]] = (
    ("GET", "vehicles/{vin}", _part(lambda v: v.document)),
    ("GET", "fleets", lambda ops, call, _: _many(call, "fleets", [f.document for f in ops.world(call.login).fleets])),
    ("GET", "fleets/{fid}", lambda ops, call, found: _one(call, ops.fleet(call, found).document)),
    ("GET", "fleets/{fid}/vehicles", _of_fleet("vehicles", lambda f: [v.document for v in f.vehicles])),
    ("GET", "fleets/{fid}/status", _of_fleet("status", lambda f: f.each(lambda v: v.status))),
    ("GET", "fleets/{fid}/maintenances", _of_fleet("maintenances", lambda f: f.each(lambda v: v.maintenance))),
    ("GET", "fleets/{fid}/alerts", _of_fleet("alerts", lambda f: f.all(lambda v: v.alerts))),
    ("GET", "fleets/{fid}/trips", _of_fleet("trips", lambda f: f.all(lambda v: v.trips))),
    ("GET", "fleets/{fid}/collisions", _of_fleet("collisions", lambda f: f.all(_nothing))),
    ("GET", _V, _part(lambda v: v.document)),
    ("GET", f"{_V}/lastPosition", _part(lambda v: v.position)),
    ("GET", f"{_V}/status", _part(lambda v: v.status)),
    ("GET", f"{_V}/maintenance", _part(lambda v: v.maintenance)),
    ("GET", f"{_V}/alarms", _part(lambda v: {"id": v.id, "alarm": {"status": {"activation": "Inactive"}}})),
    ("GET", f"{_V}/stolen", _part(lambda v: {"id": v.id, "stolen": False})),
    ("GET", f"{_V}/telemetry", _list("telemetry", lambda v: v.points("telemetry"), HIGH_FREQUENCY)),
    ("GET", f"{_V}/collisions", _list("collisions", _nothing)),
    ("GET", f"{_V}/alerts", _list("alerts", lambda v: v.alerts)),
    (
        "GET",
        f"{_V}/alerts/{{aid}}",
        lambda ops, call, found: _one(call, _named(ops.vehicle(call, found).alerts, found["aid"])),
    ),
    ("GET", f"{_V}/trips", _list("trips", lambda v: v.trips)),
    (
        "GET",
        f"{_V}/trips/{{tid}}",
        lambda ops, call, found: _one(call, _named(ops.vehicle(call, found).trips, found["tid"])),
    ),
    ("GET", f"{_V}/trips/{{tid}}/collisions", _of_trip("collisions", _nothing)),
    ("GET", f"{_V}/trips/{{tid}}/alerts", _of_trip("alerts", lambda v: v.alerts)),
    ("GET", f"{_V}/trips/{{tid}}/wayPoints", _of_trip("wayPoints", lambda v: v.points("wayPoints"), HIGH_FREQUENCY)),
    ("GET", f"{_V}/trips/{{tid}}/telemetry", _of_trip("telemetry", lambda v: v.points("telemetry"), HIGH_FREQUENCY)),
    *_keeping("fleets/{fid}/monitors", "monitors"),
    *_keeping("fleets/{fid}/remote/callbacks", "callbacks"),
    ("POST", f"{_V}/callbacks/{{cbid}}/remotes", _remote),
)
OPERATIONS: Final = tuple(_Operation(method, tuple(path.split("/")), run) for method, path, run in _TABLE)
