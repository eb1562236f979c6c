"""A partner's rules, as values. What nobody has published is None, shown as unknown, and never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from broker.errors import UnknownNameError
from broker.model.authentication import Authentication
from broker.model.subject import KeyRules, SubjectRules

__all__ = ["Environment", "Operation", "Probe", "Profile", "Renewal", "Submission"]


@dataclass(frozen=True, slots=True)
class Environment:
    """One of the partner's installations. `base_url` is None where each account brings its own."""

    base_url: str | None = None
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """How a CSR reaches the partner's people: by e-mail, so far. `subject` and `body` are `string.Template` texts."""

    how: str = "e-mail"
    to: str | None = None
    subject: str = "Certificate signing request for $login"
    body: str = "Please sign the attached certificate signing request for $login.\n"


@dataclass(frozen=True, slots=True)
class Renewal:
    """When to start again. The first two are our caution; the others the partner's, and None while unknown."""

    safety: timedelta = timedelta(days=14)  # before not_after
    share: float = 2 / 3  # of the lifetime
    lifetime: timedelta | None = None
    overlap: timedelta | None = None  # how long the old certificate still works once there is a new one
    lead_time: timedelta | None = None  # from sending the CSR to having the reply


@dataclass(frozen=True, slots=True)
class Probe:
    """A harmless real request, and the statuses that mean that the set was accepted."""

    method: str = "GET"
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)
    expect: frozenset[int] = frozenset({200})


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing the API can do; `path` is a template such as `/fleets/{fid}`."""

    method: str
    path: str
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """All that the broker knows of a partner. `catalogue` has the built-in ones, `document` reads a user's own."""

    name: str
    title: str
    environments: Mapping[str, Environment]
    subject: SubjectRules = field(default_factory=SubjectRules)
    key: KeyRules = field(default_factory=KeyRules)
    authentication: Authentication = field(default_factory=Authentication)
    submission: Submission = field(default_factory=Submission)
    renewal: Renewal = field(default_factory=Renewal)
    probe: Probe = field(default_factory=Probe)
    operations: tuple[Operation, ...] = ()
    notes: str = ""

    def environment(self, name: str) -> Environment:
        """Return the environment called `name`; raise `UnknownNameError`."""
        try:
            return self.environments[name]
        except KeyError:
            raise UnknownNameError(
                f"profile {self.name} has no environment {name[:80]!r}",
                hint=f"it has {', '.join(sorted(self.environments))}",
            ) from None

    @property
    def unknowns(self) -> tuple[str, ...]:
        """The settings that the partner has not published, by their dotted names; for `doctor` to list."""
        values = {
            "submission.to": self.submission.to,
            "renewal.lifetime": self.renewal.lifetime,
            "renewal.overlap": self.renewal.overlap,
            "renewal.lead_time": self.renewal.lead_time,
        }
        return tuple(name for name, value in values.items() if value is None)
