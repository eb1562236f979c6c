"""The operations of the Fleet Owner API: one table of method, path and function; bodies are HAL.

Monitors, callbacks and remote commands are kept in memory, for each login. Remote commands have no effect.
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
from partner_standin.responses import GEO_JSON, HAL, Response, geo_json, hal

T = TypeVar("T")
Document: TypeAlias = Mapping[str, Any]


class NotFoundError(Exception):
    """This login has no such resource."""


class WrongBodyError(Exception):
    """The body is not the JSON object that this operation takes."""


class NotAcceptableError(Exception):
    """The request does not accept the media type of the answer."""


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
    accept: str = ""  # the header Accept; "" accepts everything
    echo: str = ""  # the client_id to repeat in links

    def accepts(self, media_type: str) -> bool:
        """Return whether `media_type` is among those of Accept (RFC 9110, 12.5.1); weights are ignored."""
        asked = {part.partition(";")[0].strip().lower() for part in self.accept.split(",")} - {""}
        return not asked or bool(asked & {media_type, f"{media_type.partition('/')[0]}/*", "*/*"})

    def link(self, path: str) -> str:
        """Return the absolute href of a path (with query) below the base."""
        joint = "&" if "?" in path else "?"
        echo = f"{joint}{urlencode({'client_id': self.echo})}" if self.echo else ""
        return f"{self.origin}{self.prefix}{path}{echo}"


Found: TypeAlias = Mapping[str, str]
Run: TypeAlias = "Callable[[Operations, Call, Found], Response]"
Read: TypeAlias = "Callable[[Operations, Call, Found], Sequence[Document]]"


class Operations:
    """Answer calls with data generated from `seed`. Thread-safe."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._worlds: dict[str, World] = {}
        self._kept: dict[tuple[str, ...], dict[str, Document]] = {}

    def answer(self, call: Call) -> Response | None:
        """Return the answer; None if no operation has this method. Raise `NotFoundError`, `WrongBodyError`,
        `NotAcceptableError`; `paging.BadPageError` passes through.
        """
        segments = call.path.strip("/").split("/")
        matches = [(op, found) for op in OPERATIONS if (found := op.match(segments)) is not None]
        if not matches:
            raise NotFoundError
        for operation, found in matches:
            if operation.method == call.method:
                if operation.media_type != HAL and not call.accepts(operation.media_type):
                    raise NotAcceptableError
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
        """Return the monitors or callbacks of a fleet, or the remote commands of a callback, to read or change."""
        place = (self.vehicle(call, found).id, found["cbid"]) if "vid" in found else (self.fleet(call, found).id,)
        with self._lock:
            return self._kept.setdefault((call.login, kind, *place), {})


@dataclass(frozen=True, slots=True)
class _Operation:
    """A row of the table."""

    method: str
    template: tuple[str, ...]
    run: Run
    media_type: str = HAL

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


def _number(found: Found) -> str:
    """Return the last id of the path."""
    return list(found.values())[-1]


def _sent(call: Call) -> Document:
    try:
        return msgspec.json.decode(call.body, type=dict[str, Any])
    except msgspec.DecodeError:
        raise WrongBodyError from None


def _part(read: Callable[[Vehicle], Document]) -> Run:
    return lambda ops, call, found: _one(call, read(ops.vehicle(call, found)))


def _of(read: Callable[[Vehicle], Sequence[Document]]) -> Read:
    return lambda ops, call, found: read(ops.vehicle(call, found))


def _of_trip(read: Callable[[Vehicle], Sequence[Document]]) -> Read:
    def found_in(ops: Operations, call: Call, found: Found) -> Sequence[Document]:
        vehicle = ops.vehicle(call, found)
        _named(vehicle.trips, found["tid"])
        return read(vehicle)

    return found_in


def _way(ops: Operations, call: Call, found: Found) -> Sequence[Document]:
    vehicle = ops.vehicle(call, found)
    _named(vehicle.thefts, found["sid"])
    return vehicle.points("waypoints")


def _of_fleet(read: Callable[[Vehicle], Sequence[Document]]) -> Read:
    return lambda ops, call, found: ops.fleet(call, found).all(read)


def _list(name: str, read: Read, most: int = LIST) -> Run:
    return lambda ops, call, found: _many(call, name, read(ops, call, found), most)


def _create(kind: str) -> Run:
    def run(ops: Operations, call: Call, found: Found) -> Response:
        document = _sent(call)
        number = uuid.uuid4().hex[:24]
        ops.kept(call, found, kind)[number] = {**document, "id": number}
        return hal({"id": number, "_links": {"self": {"href": call.link(f"{call.path}/{number}")}}}, 202)

    return run


def _read(kind: str) -> Run:
    return lambda ops, call, found: _one(call, _existing(ops.kept(call, found, kind).get(_number(found))))


def _replace(kind: str) -> Run:
    def run(ops: Operations, call: Call, found: Found) -> Response:
        kept, number = ops.kept(call, found, kind), _number(found)
        _existing(kept.get(number))
        kept[number] = {**_sent(call), "id": number}
        return hal({"id": number}, 202)

    return run


def _pause(kind: str) -> Run:
    def run(ops: Operations, call: Call, found: Found) -> Response:
        kept, number = ops.kept(call, found, kind), _number(found)
        kept[number] = {**_existing(kept.get(number)), "status": _sent(call).get("status")}
        return hal({"id": number}, 202)

    return run


def _delete(kind: str) -> Run:
    def run(ops: Operations, call: Call, found: Found) -> Response:
        _existing(ops.kept(call, found, kind).pop(_number(found), None))
        return Response(204)

    return run


def _remote(ops: Operations, call: Call, found: Found) -> Response:
    vehicle, number = ops.vehicle(call, found), uuid.uuid4().hex
    _existing(ops.kept(call, {"fid": found["fid"]}, "callbacks").get(found["cbid"]))
    ops.kept(call, found, "remotes")[number] = {**_sent(call), "id": number, "type": "Accepted"}
    return hal({"remoteActionId": number, "type": "Accepted", "vin": vehicle.vin}, 202)


Row: TypeAlias = tuple[str, str, Run]


def _all(kind: str) -> Run:
    return lambda ops, call, found: _many(call, kind, tuple(ops.kept(call, found, kind).values()))


def _records(path: str, number: str, read: Read) -> tuple[Row, ...]:
    """Return the operations that list the records at `path`, and that show one of them."""
    one: Run = lambda ops, call, found: _one(call, _named(read(ops, call, found), _number(found)))  # noqa: E731
    return ("GET", path, _list(path.rpartition("/")[2], read)), ("GET", f"{path}/{{{number}}}", one)


def _keeping(path: str, number: str, kind: str) -> tuple[Row, ...]:
    one = f"{path}/{{{number}}}"
    return (
        ("GET", path, _all(kind)),
        ("POST", path, _create(kind)),
        ("GET", one, _read(kind)),
        ("PUT", one, _replace(kind)),
        ("DELETE", one, _delete(kind)),
        ("PUT", f"{one}/status", _pause(kind)),
    )


_F: Final = "fleets/{fid}"
_V: Final = "fleets/{fid}/vehicles/{vid}"
_T: Final = f"{_V}/trips/{{tid}}"
_REMOTES: Final = f"{_V}/callbacks/{{cbid}}/remotes"
_TABLE: Final[tuple[Row, ...]] = (
    ("GET", "vehicles/{vin}", _part(lambda v: v.document)),
    ("GET", "fleets", lambda ops, call, _: _many(call, "fleets", [f.document for f in ops.world(call.login).fleets])),
    ("GET", _F, lambda ops, call, found: _one(call, ops.fleet(call, found).document)),
    ("GET", f"{_F}/vehicles", _list("vehicles", lambda o, c, found: [v.document for v in o.fleet(c, found).vehicles])),
    ("GET", _V, _part(lambda v: v.document)),
    ("GET", f"{_V}/lastPosition", lambda ops, call, found: geo_json(ops.vehicle(call, found).position)),
    ("GET", f"{_V}/status", _part(lambda v: v.status)),
    ("GET", f"{_V}/maintenance", _part(lambda v: v.maintenance)),
    *_records(f"{_V}/alerts", "aid", _of(lambda v: v.alerts)),
    *_records(f"{_V}/alarms", "aid", _of(lambda v: v.alarms)),
    *_records(f"{_V}/collisions", "cid", _of(lambda v: v.collisions)),
    *_records(f"{_V}/stolen", "sid", _of(lambda v: v.thefts)),
    ("GET", f"{_V}/stolen/{{sid}}/waypoints", _list("waypoints", _way, HIGH_FREQUENCY)),
    ("GET", f"{_V}/telemetry", _list("telemetry", _of(lambda v: v.points("telemetry")), HIGH_FREQUENCY)),
    *_records(f"{_V}/trips", "tid", _of(lambda v: v.trips)),
    ("GET", f"{_T}/collisions", _list("collisions", _of_trip(lambda v: v.collisions))),
    *_records(f"{_T}/alerts", "aid", _of_trip(lambda v: v.alerts)),
    ("GET", f"{_T}/wayPoints", _list("wayPoints", _of_trip(lambda v: v.points("wayPoints")), HIGH_FREQUENCY)),
    ("GET", f"{_T}/telemetry", _list("telemetry", _of_trip(lambda v: v.points("telemetry")), HIGH_FREQUENCY)),
    ("GET", f"{_F}/status", _list("status", _of_fleet(lambda v: [v.status]))),
    ("GET", f"{_F}/maintenances", _list("maintenances", _of_fleet(lambda v: [v.maintenance]))),
    *_records(f"{_F}/alerts", "aid", _of_fleet(lambda v: v.alerts)),
    ("GET", f"{_F}/trips", _list("trips", _of_fleet(lambda v: v.trips))),
    *_records(f"{_F}/collisions", "cid", _of_fleet(lambda v: v.collisions)),
    *_keeping(f"{_F}/monitors", "mid", "monitors"),
    *_keeping(f"{_F}/remote/callbacks", "cbid", "callbacks"),
    ("POST", _REMOTES, _remote),
    ("GET", _REMOTES, _all("remotes")),
    ("GET", f"{_REMOTES}/{{rid}}", _read("remotes")),
)
OPERATIONS: Final = tuple(
    _Operation(method, tuple(path.split("/")), run, GEO_JSON if path.endswith("lastPosition") else HAL)
    for method, path, run in _TABLE
)
