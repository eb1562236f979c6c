"""Generated fleets of a login: plausible, and always the same for the same seed."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

Document = Mapping[str, Any]
START: Final = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)
FLEETS: Final = (("North", 137), ("South", 12), ("Pool", 0))  # name and how many vehicles
MODELS: Final = (
    ("Peugeot", "VF3", "e-208", "Electric"),
    ("Peugeot", "VF3", "3008", "Thermic"),
    ("Citroen", "VF7", "e-Berlingo", "Electric"),
    ("DS", "VR1", "DS 4", "Hybrid"),
    ("Opel", "VXK", "Combo-e", "Electric"),
)
VIN_LETTERS: Final = "".join(set(string.ascii_uppercase + string.digits) - set("IOQ"))
ALERTS: Final = ("lowFuel", "lowBattery", "tyrePressure", "brakePads", "serviceDue", "washerFluid")
TRIPS: Final = 65  # more than a page
POINTS: Final = 120


@dataclass(frozen=True)
class Vehicle:
    """One vehicle. Its lists are generated from its own seed."""

    id: str
    vin: str
    brand: str
    label: str
    energy: str
    seed: str

    @property
    def document(self) -> Document:
        """The answer of `/vehicles/{vin}`."""
        return {
            "id": self.id,
            "vin": self.vin,
            "brand": self.brand,
            "label": self.label,
            "engine": [{"class": self.energy}],
            "createdAt": _stamp(START),
        }

    @cached_property
    def status(self) -> Document:
        """The answer of `/status`: energy, odometer, doors."""
        dice = self._dice("status")
        return {
            "id": self.id,
            "updatedAt": _stamp(START + timedelta(minutes=dice.randrange(10_000))),
            "energies": [{"type": self.energy, "level": dice.randrange(5, 100), "autonomy": dice.randrange(30, 600)}],
            "odometer": {"mileage": dice.randrange(1_000, 120_000)},
            "doorsState": {"lockedStates": ["Locked" if dice.randrange(10) else "Unlocked"]},
            "ignition": {"type": dice.choice(("Stop", "StartUp"))},
        }

    @cached_property
    def position(self) -> Document:
        """The answer of `/lastPosition`: a GeoJSON point in France."""
        return {"type": "Feature", "geometry": _point(self._dice("position")), "properties": {"heading": 90.0}}

    @cached_property
    def maintenance(self) -> Document:
        """Days and mileage before the next service."""
        dice = self._dice("maintenance")
        return {
            "id": self.id,
            "daysBeforeMaintenance": dice.randrange(365),
            "mileageBeforeMaintenance": dice.randrange(500, 30_000),
        }

    @cached_property
    def alerts(self) -> Sequence[Document]:
        """Up to five alerts."""
        dice = self._dice("alerts")
        return tuple(
            {
                "id": _id(dice),
                "type": dice.choice(ALERTS),
                "active": bool(dice.randrange(2)),
                "startedAt": _stamp(START),
            }
            for _ in range(dice.randrange(6))
        )

    @cached_property
    def alarms(self) -> Sequence[Document]:
        """The alarm's last activation."""
        return ({"id": _id(self._dice("alarms")), "status": {"activation": "Inactive"}, "startedAt": _stamp(START)},)

    @cached_property
    def collisions(self) -> Sequence[Document]:
        """A collision, for one vehicle in eight."""
        dice = self._dice("collisions")
        return ({"id": _id(dice), "severity": "Low", "startedAt": _stamp(START)},) if not dice.randrange(8) else ()

    @cached_property
    def thefts(self) -> Sequence[Document]:
        """A theft that ended, for one vehicle in twenty."""
        dice = self._dice("thefts")
        return ({"id": _id(dice), "stolen": False, "startedAt": _stamp(START)},) if not dice.randrange(20) else ()

    @cached_property
    def trips(self) -> Sequence[Document]:
        """Trips: more than one page."""
        dice = self._dice("trips")
        return tuple(
            {
                "id": _id(dice),
                "startedAt": _stamp(START + timedelta(hours=12 * number)),
                "duration": f"PT{dice.randrange(5, 90)}M",
                "distance": round(dice.uniform(1, 150), 1),
            }
            for number in range(TRIPS)
        )

    def points(self, what: str) -> Sequence[Document]:
        """Return way points or telemetry, named by `what`: a high-frequency list."""
        dice = self._dice(what)
        return tuple(
            {
                "createdAt": _stamp(START + timedelta(seconds=30 * n)),
                "geometry": _point(dice),
                "speed": dice.randrange(131),
            }
            for n in range(POINTS)
        )

    def _dice(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}/{what}")  # noqa: S311 - repeatable data, not a secret


@dataclass(frozen=True)
class Fleet:
    """A named set of vehicles."""

    id: str
    name: str
    vehicles: tuple[Vehicle, ...]

    @property
    def document(self) -> Document:
        """The answer of `/fleets/{fid}`."""
        return {"id": self.id, "name": self.name, "vehicles": len(self.vehicles), "createdAt": _stamp(START)}

    def vehicle(self, number: str) -> Vehicle | None:
        """Return the vehicle with this id."""
        return next((vehicle for vehicle in self.vehicles if vehicle.id == number), None)

    def all(self, parts: Callable[[Vehicle], Sequence[Document]], most: int = 5) -> Sequence[Document]:
        """Return the first few entries of every vehicle's list, with the vehicle's VIN."""
        return tuple({"vin": v.vin, **entry} for v in self.vehicles for entry in parts(v)[:most])


class World:
    """All fleets of one login."""

    def __init__(self, seed: str, login: str) -> None:
        dice = random.Random(f"{seed}/{login}")  # noqa: S311 - repeatable data, not a secret
        self.fleets = tuple(
            Fleet(_id(dice), name, tuple(_vehicle(dice, f"{seed}/{login}/{name}/{n}") for n in range(size)))
            for name, size in FLEETS
        )

    def fleet(self, number: str) -> Fleet | None:
        """Return the fleet with this id."""
        return next((fleet for fleet in self.fleets if fleet.id == number), None)

    def vehicle(self, vin: str) -> Vehicle | None:
        """Return the vehicle with this VIN."""
        return next((vehicle for fleet in self.fleets for vehicle in fleet.vehicles if vehicle.vin == vin), None)


def _vehicle(dice: random.Random, seed: str) -> Vehicle:
    brand, maker, label, energy = dice.choice(MODELS)
    vin = maker + "".join(dice.choices(sorted(VIN_LETTERS), k=8)) + f"{dice.randrange(10**6):06}"
    return Vehicle(_id(dice), vin, brand, label, energy, seed)


def _id(dice: random.Random) -> str:
    return f"{dice.getrandbits(96):024x}"


def _point(dice: random.Random) -> Document:
    return {"type": "Point", "coordinates": [round(dice.uniform(-1, 6), 5), round(dice.uniform(43.5, 49), 5)]}


def _stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
