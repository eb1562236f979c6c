"""Values of an account that is being added, for every verb that adds one."""

from typing import Final

from broker.errors import InputError
from broker.model.authentication import LOGIN
from broker.partners.profile import Profile
from broker.partners.request import base_url

_LONGEST_LOGIN: Final = 256


def checked_login(profile: Profile, login: str) -> str:
    """Return `login`; raise `InputError` if the partner's requests cannot carry it."""
    if not (0 < len(login) <= _LONGEST_LOGIN and login.isprintable()):
        raise InputError(f"{login[:80]!r} is not a valid login", hint=f"use 1 to {_LONGEST_LOGIN} printable characters")
    fault = profile.authentication.problem(LOGIN, login)
    if fault:
        raise fault
    return login


def address_of(profile: Profile, environment: str, given: str) -> str:
    """Return the API's address: the environment's, else as it is `given`; raise `InputError`."""
    known = profile.environment(environment).base_url
    if known and given and base_url(given) != base_url(known):
        raise InputError(
            f"{profile.name} {environment} is at {known}; secrets are sent to no other address",
            hint="leave out --base-url, or add a custom profile: broker partner add FILE",
        )
    if not known and not given:
        raise InputError(f"{profile.name} {environment} has no address of its own", hint="--base-url https://host/path")
    return base_url(known or given)
