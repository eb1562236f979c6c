"""Calls while Vault is away: one tries it, the others do not wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.errors import DeniedError, VaultUnavailableError
from broker.issuing.away import Away


def fails(error: Exception | None = None) -> None:
    raise error or VaultUnavailableError("sealed")


def away() -> Away:
    made = Away()
    with pytest.raises(VaultUnavailableError, match="sealed"):
        made.call(fails)
    return made


def test_one_tries_and_the_others_are_refused() -> None:
    vault, asked, answer = away(), threading.Event(), threading.Event()

    def slow() -> str:
        asked.set()
        answer.wait(30)
        return "there"

    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(vault.call, slow)
        assert asked.wait(30)
        for _ in range(20):
            with pytest.raises(VaultUnavailableError, match="Vault is away"):
                vault.call(lambda: pytest.fail("a second call tries it"))
        answer.set()
        assert trying.result(30) == "there"
    assert vault.call(lambda: "there") == "there"


def test_each_try_may_fail_again() -> None:
    vault = away()
    for _ in range(3):
        with pytest.raises(VaultUnavailableError, match="sealed"):
            vault.call(fails)


def test_a_denial_is_an_answer_of_vault() -> None:
    vault = away()
    with pytest.raises(DeniedError):
        vault.call(lambda: fails(DeniedError("no")))
    both = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(lambda _: vault.call(lambda: both.wait(30)), range(2)))) == 2
