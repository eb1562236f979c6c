"""Subjects of certificates, and a partner's rules for subjects and keys. Values only; `pki.lint` checks them."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field

ATTRIBUTES: Final = ("C", "ST", "L", "O", "OU", "CN", "emailAddress")
# Characters; X.520's upper bounds (RFC 5280, A.1)
BOUNDS: Final[Mapping[str, int]] = {"C": 2, "ST": 128, "L": 128, "O": 64, "OU": 64, "CN": 64, "emailAddress": 255}


class Subject(Struct, frozen=True):
    """A distinguished name: attribute and value, in the order of the CSR. Only names in `ATTRIBUTES`."""

    attributes: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """Return the first value of attribute `name`, or "" if the subject has none."""
        return next((value for attribute, value in self.attributes if attribute == name), "")

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.attributes)


class SubjectRules(Struct, frozen=True):
    """A partner's rules for the subject. An attribute in neither `required` nor `forbidden` is optional."""

    order: tuple[str, ...] = ATTRIBUTES
    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    fixed: Mapping[str, str] = field(default_factory=dict)  # attribute: the exact value
    common_name_is_login: bool = False
    login_prefix: str = ""  # usual, so its absence is a warning; "" if unknown


class KeyRules(Struct, frozen=True):
    """A partner's rules for keys and signatures."""

    algorithm: str = "rsa"  # the only one so far
    bits: int = 2048
    digest: str = "sha256"  # sha256, sha384 or sha512
    reuse: bool = False  # the partner signs another certificate for the same key
