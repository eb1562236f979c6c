"""A group of commands: `broker NOUN VERB`."""

from collections.abc import Callable
from typing import Any

import click


class Noun(click.Group):
    """A noun. The first argument of its verbs is `Start`."""

    def verb(self, name: str, *, example: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
        """Return a decorator that makes a function the command `name`."""
        command = self.command(name, epilog=f"Example: {example}", **settings)
        return lambda function: command(click.pass_obj(function))
