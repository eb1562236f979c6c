"""Paths in Vault, and names that are refused."""

from __future__ import annotations

import pytest

from broker.errors import InputError
from broker.vault import layout

BAD = ["", "A", "a/b", "..", "a b", "-a", "a\n", "+", "*", "é", "a" * 64, "a%2fb"]


def test_paths_are_as_documented() -> None:
    assert layout.account("mzp-1") == "accounts/mzp-1"
    assert layout.key("mzp-1", 4) == "keys/mzp-1/4"
    assert layout.secret("mzp-1", "password", 2) == "passwords/mzp-1/2"
    assert layout.secret("mzp-1", "hmac", 2) == "secrets/mzp-1/hmac/2"
    assert layout.evidence("accounts/mzp-1", 7) == "evidence/accounts/mzp-1/00000007"
    assert layout.evidence("issued/host-1", 0) == "evidence/issued/host-1/00000000"
    assert layout.head(12) == "evidence/heads/00000012"
    assert layout.consumer("448d58e6-ba4c-4577-4cf2-a7f1ce219568.ZikNdV").startswith("consumers/448d")
    right = layout.right("stellantis", "production", "mzp-1", "fleet")
    assert right == "cb-issue/stellantis/production/mzp-1/fleet/direct"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_name_makes_no_path(name: str) -> None:
    for make in (layout.account, layout.consumer, layout.signer):
        with pytest.raises(InputError):
            make(name)
    for names in ((name, "b", "c", "d"), ("a", name, "c", "d"), ("a", "b", name, "d"), ("a", "b", "c", name)):
        with pytest.raises(InputError):
            layout.right(*names)


@pytest.mark.parametrize("chain", ["", "accounts", "accounts/", "keys/a", "accounts/a/b", "issued/..", "heads/a"])
def test_only_known_chains_hold_evidence(chain: str) -> None:
    with pytest.raises(InputError):
        layout.evidence(chain, 1)


@pytest.mark.parametrize("number", [-1, 10**8])
def test_numbers_sort_as_text(number: int) -> None:
    with pytest.raises(InputError):
        layout.head(number)
