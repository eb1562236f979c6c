"""A secret shows itself to `reveal()` and to nothing else."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import logging
import marshal
import pickle
import pprint
import reprlib
import string
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import pytest

from broker.model.secret import Secret
from tests.support.accounts import PLANTED

TEXT = Secret(PLANTED)
OCTETS = Secret(PLANTED.encode())


@dataclass(frozen=True, slots=True)
class Holder:
    name: str
    secret: Secret[str]


def printed(secret: object) -> str:
    stream = io.StringIO()
    print(secret, [secret], file=stream)
    return stream.getvalue()


def logged(secret: object) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("%s %r %5s", secret, secret, {"a": [secret]})
    logger.warning(secret)
    return stream.getvalue()


def in_a_traceback(secret: object) -> str:
    def fails(password: object) -> None:
        kept = [password, {"password": password}]
        raise RuntimeError(f"no {password} {kept!r}")

    try:
        fails(secret)
    except RuntimeError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        return "".join(shown.format())
    raise AssertionError


SHOWING: dict[str, Callable[[Any], object]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "print": printed,
    "f-string": lambda s: f"{s} {s!r} {s!s} {s!a} {s:>40} {s=}",
    "format": lambda s: format(s, "x<50"),
    "str.format": lambda s: "{0} {0!r} {a[0]}".format(s, a=[s]),  # noqa: UP032  # the old way is what is tested
    "percent": lambda s: "%s %r %10.20s" % (s, s, s),  # noqa: UP031
    "template": lambda s: string.Template("$s").substitute(s=s),
    "in a list": lambda s: str([s, (s,), {"a": s}, {1: [s]}]),
    "in a dataclass": lambda s: repr(Holder("a", s)),
    "pprint": lambda s: pprint.pformat({"a": [s] * 30}),
    "reprlib": reprlib.repr,
    "logging": logged,
    "traceback with locals": in_a_traceback,
    "json default": lambda s: json.dumps({"a": s}, default=repr),
    "as an exception's argument": lambda s: f"{ValueError(s)} {ValueError(s, s)!r}",
}


@pytest.mark.parametrize("secret", [TEXT, OCTETS], ids=["str", "bytes"])
@pytest.mark.parametrize("way", SHOWING)
def test_showing_it_shows_nothing(way: str, secret: Secret[str]) -> None:
    shown = SHOWING[way](secret)
    assert isinstance(shown, str)
    assert PLANTED not in shown
    assert "<secret>" in shown


TAKING_OUT: dict[str, Callable[[Any], object]] = {
    **{f"pickle {n}": partial(pickle.dumps, protocol=n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy of a holder": lambda s: copy.deepcopy({"a": [s]}),
    "asdict": lambda s: dataclasses.asdict(Holder("a", s)),
    "astuple": lambda s: dataclasses.astuple(Holder("a", s)),
    "getstate": lambda s: s.__getstate__(),
    "reduce": lambda s: s.__reduce__(),
    "reduce_ex": lambda s: s.__reduce_ex__(4),
    "json": json.dumps,
    "json of a holder": lambda s: json.dumps({"a": s}),
    "msgspec": msgspec.json.encode,
    "msgspec to_builtins": lambda s: msgspec.to_builtins(Holder("a", s)),
    "bytes": bytes,
    "vars": vars,
    "iter": list,
    "len": len,
    "index": lambda s: s[0],
    "concatenation": lambda s: "a" + s,
    "join": lambda s: "".join([s]),
    "contains": lambda s: "a" in s,
    "order": lambda s: s < s,  # noqa: PLR0124
    "hash": hash,
    "a set": lambda s: {s},
    "marshal": marshal.dumps,
    "new attribute": lambda s: setattr(s, "other", 1),
}


@pytest.mark.parametrize("secret", [TEXT, OCTETS], ids=["str", "bytes"])
@pytest.mark.parametrize("way", TAKING_OUT)
def test_taking_it_out_leaves_it_out(way: str, secret: Secret[str]) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        TAKING_OUT[way](secret)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert PLANTED not in "".join(shown.format())
    assert PLANTED not in repr(vars(caught.value))


def test_revealing_gives_the_value_itself() -> None:
    assert TEXT.reveal() == PLANTED
    assert OCTETS.reveal() == PLANTED.encode()


def test_secrets_compare_by_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("") != Secret("a")


@pytest.mark.parametrize("other", ["a", b"a", None, 1, ["a"]])
def test_a_secret_never_equals_a_plain_value(other: object) -> None:
    assert Secret("a") != other


def test_comparing_bad_unicode_leaks_nothing() -> None:
    odd = Secret(PLANTED + "\udcff")
    assert odd == Secret(PLANTED + "\udcff")
    assert odd != Secret(PLANTED)


def test_subclass_shows_nothing_either() -> None:
    class Passphrase(Secret[str]):
        pass

    assert PLANTED not in f"{Passphrase(PLANTED)} {Passphrase(PLANTED)!r}"
    with pytest.raises(TypeError):
        pickle.dumps(Passphrase(PLANTED))


def test_a_digest_says_nothing_of_the_value() -> None:
    """It is a key for caches: equal for equal values, and neither a plain digest nor an error for a lone surrogate."""
    assert Secret("one").digest() == Secret("one").digest() != Secret("two").digest()
    assert Secret("one").digest() not in (hashlib.blake2b(b"one").digest(), hashlib.sha256(b"one").digest())
    assert Secret("\ud800").digest()
