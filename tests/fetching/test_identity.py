"""The identity that is shown to the service, from a file or a variable."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest

from broker.errors import InputError
from broker.fetching.identity import identity


@pytest.mark.parametrize("text", ["", " ", "PLANTED two", "PLANTED\nsecond", "PLANTED\x7f", "PLANTEDé"])
@pytest.mark.parametrize("method", ["token-file", "jwt-file", "jwt-env"])
def test_text_that_is_no_token(method: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named by its place, and an error tracker, which keeps the variables of all frames, does not get it."""
    here = sys._getframe().f_code
    source = "PLACE" if method == "jwt-env" else str(tmp_path / "place")
    (tmp_path / "place").write_text(text)
    monkeypatch.setenv("PLACE", text)
    with pytest.raises(InputError, match=source) as raised:
        identity(f"{method}:{source}")
    frames = (found for found in traceback.walk_tb(raised.value.__traceback__) if found[0].f_code is not here)
    kept = traceback.StackSummary.extract(frames, capture_locals=True).format()
    assert "PLANTED" not in "".join(kept) + str(raised.value) + raised.value.hint


@pytest.mark.parametrize("method", ["token-file", "jwt-file", "jwt-env"])
def test_a_line_end_is_no_part(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "place").write_text("token\r\n")
    monkeypatch.setenv("PLACE", "token\n")
    found = identity(f"{method}:{'PLACE' if method == 'jwt-env' else tmp_path / 'place'}")
    assert (found.credential.reveal(), found.is_jwt) == ("token", method != "token-file")
