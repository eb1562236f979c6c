"""The phases of an account's rotation: one table for code, `rotation status` and docs/reference/life-cycle.md."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Who(Enum):
    """The party that acts next."""

    NOBODY = "nobody"
    US = "us"
    PARTNER = "partner"


class State(Enum):
    """The state of an account by its facts, the worst first."""

    EXPIRED = "expired"  # the current certificate is over
    STOPPED = "stopped"  # nothing goes on until a person has removed the cause
    SUSPENDED = "suspended"  # a person stopped the issuing of bundles
    DUE = "due"  # renewal must start, or takes longer than it should
    UNFINISHED = "unfinished"  # the next step is ours, and there is time
    WAITING = "waiting"  # the next step is the partner's
    OK = "ok"


class Row(Struct, frozen=True):
    """A phase: meaning, who acts next, the command, and the state of the account. `command` takes its name.

    `automatic` says if the scheduler does it: "renewal" and "promotion" if the account's setting of that name is auto.
    """

    meaning: str
    who: Who
    command: str
    state: State
    automatic: str = ""


class Phase(Enum):
    """The place of an account in its life cycle, the most urgent first."""

    COMPROMISED = (
        "compromised",
        Row(
            "others know its key: it is replaced immediately, "
            "until the partner confirms that it revoked the certificate",
            Who.US,
            "broker status {account}",
            State.STOPPED,
        ),
    )
    EXPIRED = (
        "expired",
        Row(
            "the current certificate is over; the next step is as before",
            Who.US,
            "broker csr new {account}",
            State.EXPIRED,
        ),
    )
    STOPPED = (
        "stopped",
        Row(
            "nothing goes on until a person has removed the cause, such as a rejected login",
            Who.US,
            "broker rotation status {account}",
            State.STOPPED,
        ),
    )
    SUSPENDED = (
        "suspended",
        Row(
            "a person stopped the issuing of bundles; rotation goes on",
            Who.US,
            "broker account resume {account}",
            State.SUSPENDED,
        ),
    )
    NEW = (
        "new",
        Row(
            "a password, an application, a client_id or the first certificate is missing",
            Who.US,
            "broker status {account}",
            State.UNFINISHED,
        ),
    )
    CANDIDATE = (
        "candidate",
        Row(
            "a new set is ready to be tried and promoted",
            Who.US,
            "broker rotation promote {account}",
            State.UNFINISHED,
            "promotion",
        ),
    )
    PAUSED = (
        "paused",
        Row(
            "a new set is ready, and the partner wants no request before a time",
            Who.PARTNER,
            "broker rotation status {account}",
            State.WAITING,
            "promotion",
        ),
    )
    REFUSED = "refused", Row("the partner's people refused the request", Who.US, "broker csr new {account}", State.DUE)
    OVERDUE = (
        "overdue",
        Row(
            "the partner's people have not answered within the lead time",
            Who.PARTNER,
            "broker csr submit {account}",
            State.DUE,
        ),
    )
    SENT = (
        "sent",
        Row("the partner's people have the request", Who.PARTNER, "broker cert import {account} FILE", State.WAITING),
    )
    DRAFTED = (
        "drafted",
        Row(
            "a signing request exists and was never sent",
            Who.US,
            "broker csr submit {account}",
            State.UNFINISHED,
            "renewal",
        ),
    )
    DUE = "due", Row("renewal must start", Who.US, "broker csr new {account}", State.DUE, "renewal")
    DISABLED = (
        "disabled",
        Row(
            "renewal must start, and a person disabled it",
            Who.US,
            "broker account set {account} --renewal auto",
            State.DUE,
        ),
    )
    PASSWORD = (
        "password",
        Row(
            "people change the password at the partner, step by step",
            Who.US,
            "broker password rotate {account}",
            State.UNFINISHED,
        ),
    )
    RETIRING = (
        "retiring",
        Row(
            "the overlap is over: the old generation goes when no consumer holds it",
            Who.US,
            "broker rotation status {account}",
            State.OK,
            "renewal",
        ),
    )
    OVERLAP = (
        "overlap",
        Row("the old generation is kept beside the current one, as the way back", Who.NOBODY, "", State.OK, "renewal"),
    )
    NOT_DUE = "not-due", Row("nothing is to be done", Who.NOBODY, "", State.OK, "renewal")

    row: Row

    def __new__(cls, value: str, row: Row) -> Phase:
        """Make the member whose value is its name."""
        made = object.__new__(cls)
        made._value_, made.row = value, row
        return made

    @property
    def state(self) -> State:
        """The state of an account in this phase."""
        return self.row.state
