"""Find profiles by name: built-in ones, which cannot be replaced, and custom ones."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

from broker.errors import InputError, UnknownNameError
from broker.model.names import guess
from broker.partners.document import NewerProfileError, from_document, parse
from broker.partners.profile import Profile

_FOLDER: Final = resources.files("broker.partners").joinpath("profiles")
_SUFFIX: Final = ".toml"


@cache
def names() -> tuple[str, ...]:
    """Return the names of the built-in profiles, sorted."""
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in _FOLDER.iterdir() if f.name.endswith(_SUFFIX)))


@cache
def builtin(name: str) -> Profile:
    """Return a built-in profile; raise `UnknownNameError`."""
    return parse(builtin_source(name), f"profile {name}")


def builtin_source(name: str) -> str:
    """Return the text of a built-in profile, with its comments; raise `UnknownNameError`."""
    if name not in names():
        raise _unknown(name, names())
    return _FOLDER.joinpath(name + _SUFFIX).read_text(encoding="utf-8")


def load(name: str, own: Mapping[str, Mapping[str, object]]) -> Profile:
    """Return the profile `name`: a built-in one, or the document of that name in `own`; no other is read.

    Raise `UnknownNameError`; or `InputError` for a document that is not a profile, or has another name.
    """
    if name in names():
        return builtin(name)
    document = own.get(name)  # each step of `own` is a read from Vault
    if document is None:
        raise _unknown(name, (*names(), *iter(own)))
    try:
        profile = from_document(document, f"profile {name}")
    except NewerProfileError:
        raise
    except InputError as error:  # whose hint is about a file; this profile is in Vault
        raise InputError(error.message, hint=f"{error.hint}; then broker partner add FILE") from None
    if profile.name != name:
        raise InputError(f"profile {name}: its name is {profile.name}", hint="broker partner add FILE")
    return profile


def require_own(profile: Profile) -> None:
    """Raise `InputError` if `profile` would hide a built-in one."""
    if profile.name in names():
        raise InputError(
            f"{profile.name} is the name of a built-in profile", hint="use another name, such as my-partner"
        )


def _unknown(name: str, known: tuple[str, ...]) -> UnknownNameError:
    hint = f"{guess(name, known)}there are {', '.join(sorted(known))}"
    return UnknownNameError(f"there is no profile {name[:80]!r}", hint=hint)
