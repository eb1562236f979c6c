"""A partner's rules, as values. None means that the partner has not published it: shown as unknown, never guessed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from broker.errors import UnknownNameError
from broker.model.authentication import Authentication
from broker.model.subject import KeyRules, SubjectRules

PERIODS: Final = ("lifetime", "overlap", "lead_time")  # fields of `Renewal` that the partner publishes


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment of the partner. `base_url` is None if each account has its own."""

    base_url: str | None = None
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """The way a CSR reaches the partner: by e-mail, so far. `subject` and `body` are `string.Template` texts."""

    how: str = "e-mail"
    to: str | None = None
    subject: str = "Certificate signing request for $login"
    body: str = "Please sign the attached certificate signing request for $login.\n"


@dataclass(frozen=True, slots=True)
class Renewal:
    """Renewal times. The first two are the broker's margins; the others the partner's, None while unknown."""

    safety: timedelta = timedelta(days=14)  # before not_after
    share: float = 2 / 3  # of the lifetime
    lifetime: timedelta | None = None
    overlap: timedelta | None = None  # how long the old certificate works after the new one exists
    lead_time: timedelta | None = None  # from sending the CSR to having the reply


@dataclass(frozen=True, slots=True)
class Probe:
    """A harmless real request, and the statuses that mean success."""

    method: str = "GET"
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)
    expect: frozenset[int] = frozenset({200})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the API; `path` is a template such as `/fleets/{fid}`."""

    method: str
    path: str
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything the broker knows about a partner. `catalogue` finds profiles, `document` reads and writes them."""

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
        if name not in self.environments:
            known = ", ".join(sorted(self.environments))
            raise UnknownNameError(f"profile {self.name} has no environment {name[:80]!r}", hint=f"use one of {known}")
        return self.environments[name]

    @property
    def unknowns(self) -> tuple[str, ...]:
        """Dotted names of the settings that the partner has not published."""
        periods = tuple(f"renewal.{name}" for name in PERIODS if getattr(self.renewal, name) is None)
        return periods if self.submission.to else ("submission.to", *periods)
