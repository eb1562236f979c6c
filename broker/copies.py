"""`replace` for structs and dataclasses, as `copy.replace` of Python 3.13."""

from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, structs

if TYPE_CHECKING:
    from dataclasses import replace as replace  # noqa: PLC0414  # whose arguments mypy checks
else:
    Value = TypeVar("Value")

    def replace(value: Value, /, **changes: Any) -> Value:
        """Return a copy of `value` with other fields; raise `TypeError` for one that it does not have."""
        if isinstance(value, Struct):
            return structs.replace(value, **changes)
        import dataclasses  # 10 ms, and most commands have no need

        return dataclasses.replace(value, **changes)
