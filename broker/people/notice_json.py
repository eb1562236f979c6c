"""Letters as JSON, for the webhook. docs/reference/webhook.json is the schema."""

from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from broker.model.letter import Item, Letter
from broker.people.notice_mail import plain, subject

VERSION: Final = 1


class Event(Struct, frozen=True):
    """An event of an account. `id` is the same whenever it is sent again."""

    id: str
    account: str
    step: str
    rung: str
    must_act: bool
    at: datetime
    message: str
    hint: str
    expires_at: datetime | None
    uses: tuple[str, ...]
    replaced_by: str


class Body(Struct, frozen=True):
    """The body of a webhook. `id` is the same whenever it is sent again; `text` is for people."""

    version: int
    kind: str
    id: str
    at: datetime
    text: str
    events: tuple[Event, ...]


def body(letter: Letter) -> dict[str, Any]:
    """Return the JSON of a letter, as builtins."""
    events = tuple(map(_event, letter.items))
    made: dict[str, Any] = msgspec.to_builtins(
        Body(VERSION, letter.kind.value, letter.id, letter.at, _text(letter), events)
    )
    return made


def _event(item: Item) -> Event:
    notice = item.notice
    return Event(
        plain(item.key),
        item.account,
        plain(notice.step),
        plain(notice.rung),
        notice.alert,
        notice.at,
        plain(notice.message),
        plain(notice.hint),
        notice.expires_at,
        tuple(map(plain, notice.uses)),
        plain(notice.replaced_by),
    )


def _text(letter: Letter) -> str:
    lines = (f"{i.account}: {plain(i.notice.message)}. Next: {plain(i.notice.hint)}" for i in letter.items)
    return "\n".join([subject(letter), *lines])
