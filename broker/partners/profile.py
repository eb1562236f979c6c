"""A partner's rules, as values. None means that the partner has not published it: shown as unknown, never guessed."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from msgspec import Struct, field

from broker.errors import UnknownNameError
from broker.model.authentication import Authentication
from broker.model.channel import Channel
from broker.model.due import Renewal
from broker.model.duration import duration_text
from broker.model.subject import KeyRules, SubjectRules

PERIODS: Final = ("lifetime", "overlap", "lead_time")  # fields of `Renewal` that the partner publishes


class Environment(Struct, frozen=True):
    """One environment of the partner. `base_url` is None if each account has its own."""

    base_url: str | None = None
    notes: str = ""


class MailText(Struct, frozen=True):
    """The texts of mails to the partner in one language: `string.Template` texts.

    `refusal` answers a reply that is wrong; $findings is what is wrong with it, a line for each. A finding's message is
    English, unless `findings` has a text for its code. `reminder` asks for an answer to the mail of $sent; `deadline`
    stands after it if a certificate of ours ends, at $ends.
    """

    subject: str = "Certificate signing request for $login"
    body: str = "Please sign the attached certificate signing request for $login.\n"
    revoke: str = (  # stands before `body` if others know the key of the certificate with number $serial
        "URGENT: the private key of our certificate with serial number $serial is known to others. Please sign the\n"
        "attached request with priority, then revoke that certificate, and confirm the revocation in your reply.\n\n"
    )
    refusal: str = "The reply to the certificate signing request for $login cannot be used:\n\n$findings\n"
    findings: Mapping[str, str] = field(default_factory=dict)
    reminder: str = (
        "Hello,\n\nwe have no answer yet to the certificate signing request for $login\nthat we sent you on $sent. "
        "Please answer that mail with the\ncertificate, or tell us who can help.\n"
    )
    deadline: str = "\nOur certificate ends on $ends.\nWithout a new one, we cannot call your API then.\n"


class Submission(MailText, frozen=True):
    """The way a CSR reaches the partner, and the texts of mails. `texts` has them in further languages."""

    how: Channel = Channel.EML
    to: str | None = None
    url: str = ""  # of the portal
    checklist: tuple[str, ...] = ()  # for the person who submits it
    language: str = ""  # of `texts`; "": the texts without a language
    download_within: timedelta = timedelta(days=7)  # how long a link in a reply works, if the mail does not say
    texts: Mapping[str, MailText] = field(default_factory=dict)

    def text(self, language: str = "") -> MailText:
        """Return the texts in `language`, else in the profile's; raise `UnknownNameError`."""
        wanted = language or self.language
        if wanted and wanted not in self.texts:
            known = ", ".join(sorted(self.texts)) or "none: add [submission.texts.LANGUAGE]"
            raise UnknownNameError(f"the profile has no mails in {wanted[:20]!r}", hint=f"it has {known}")
        return self.texts[wanted] if wanted else self


class Probe(Struct, frozen=True):
    """A harmless real request, and the statuses that mean success."""

    method: str = "GET"
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)
    expect: frozenset[int] = frozenset({200})


class Operation(Struct, frozen=True):
    """One operation of the API; `path` is a template such as `/fleets/{fid}`."""

    method: str
    path: str
    writes: bool = False
    status: int = 200  # of a success
    accept: str = ""  # the only media type it answers, which requests must ask for; "" is the profile's
    deprecated: bool = False

    def __str__(self) -> str:
        answer = str(self.status) if self.writes else self.accept
        return f"{self.method} {self.path}{answer and f': {answer}'}"


class Quota(Struct, frozen=True):
    """One quota: its sliding window, and the headers that say how much is allowed and left."""

    window: timedelta
    limit: str
    remaining: str

    def __str__(self) -> str:
        return f"in {duration_text(self.window)}: {self.limit}, {self.remaining}"


class Refusal(Struct, frozen=True):
    """A refusal as the partner words it, and its meaning; `text` is empty if any text has it."""

    status: int
    meaning: str
    text: str = ""

    def __str__(self) -> str:
        said = f' "{self.text}"' if self.text else ""
        return f"{self.status}{said}: {self.meaning}"


class Profile(Struct, frozen=True):
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
    media_type: str = "application/json"  # of answers
    quotas: tuple[Quota, ...] = ()
    refusals: tuple[Refusal, ...] = ()
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
