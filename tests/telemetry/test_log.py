"""Log events: levels, context, forms, and values that are never written."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace

import pytest

from broker.errors import InputError
from broker.model.redactor import HIDDEN, Redactor
from broker.model.secret import Secret
from broker.telemetry import log
from broker.telemetry.rendering import PIECE, configure, gathered
from tests.support.secret_marks import Marks

PASSWORD = "s3cr3t & päss/word+1"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    log.reset()
    yield
    log.reset()


@pytest.fixture
def events() -> list[tuple[str, Mapping[str, object]]]:
    found: list[tuple[str, Mapping[str, object]]] = []
    log.send_to(log.Level.DEBUG, lambda _, event, fields: found.append((event, fields)))
    return found


def test_nothing_is_written_unconfigured(capsys: pytest.CaptureFixture[str]) -> None:
    log.error("failure")
    assert not log.is_on(log.Level.ERROR)
    assert capsys.readouterr() == ("", "")


def test_events_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log.Level.INFO, log.Form.JSON)
    log.debug("request")
    log.info("change", number=2)
    (line,) = capsys.readouterr().err.splitlines()
    shown = json.loads(line)
    assert (shown["event"], shown["level"], shown["number"]) == ("change", "info", 2)
    assert shown["timestamp"].endswith("Z")


def test_context_is_in_every_event(events: list[tuple[str, Mapping[str, object]]]) -> None:
    log.bind(account="acme")
    log.bind(lease="l1")
    log.info("issued", account="other")
    log.info("returned")
    assert events == [
        ("issued", {"account": "other", "lease": "l1"}),
        ("returned", {"account": "acme", "lease": "l1"}),
    ]


def test_fields_do_not_replace_ours(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log.Level.INFO, log.Form.JSON)
    log.bind(level="x", timestamp="y")
    log.info("change")
    shown = json.loads(capsys.readouterr().err)
    assert (shown["level"], shown["level_"], shown["timestamp_"]) == ("info", "x", "y")


@pytest.mark.parametrize("form", log.Form)
def test_no_form_of_a_secret_is_written(form: log.Form, capsys: pytest.CaptureFixture[str]) -> None:
    configure(log.Level.DEBUG, form)
    secret = Secret(PASSWORD)
    log.hide(Redactor([secret]).redact)
    log.bind(context=secret, text=f"<{PASSWORD}>")
    log.debug("one", secret=secret, nested={"a": [secret, PASSWORD.encode()]}, quoted=json.dumps(PASSWORD))
    log.debug("two", error=ValueError(PASSWORD), other=object())
    err = capsys.readouterr().err
    assert HIDDEN in err
    assert "<valueerror>" in err
    assert not Marks("password", PASSWORD.encode()).found_in(err.encode())


def test_lines_of_a_turn_leave_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=pieces.append))
    configure(log.Level.INFO, log.Form.JSON)
    turn: list[Callable[[], None]] = []
    with gathered(turn.append):
        for number in range(3):
            log.info(f"line {number}", text="x" * (PIECE // 3))
        thread = threading.Thread(target=log.info, args=("of another thread",))
        thread.start()
        thread.join()
        turn.pop()()
        log.info("last")
    log.info("after it")
    found = [[json.loads(line)["event"] for line in piece.splitlines()] for piece in pieces]
    assert found == [["of another thread"], ["line 0", "line 1"], ["line 2"], ["last"], ["after it"]]


def test_people_read_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log.Level.INFO, log.Form.CONSOLE)
    log.info("bundle", condition="ok", reason="", shown="two words", number=0)
    when, rest = capsys.readouterr().err.split(" ", 1)
    assert when.endswith("Z")
    assert rest == "info    bundle condition=ok shown='two words' number=0\n"


def test_control_characters_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log.Level.DEBUG, log.Form.CONSOLE)
    log.debug("answer", detail="\x1b[2J\nforged")
    assert capsys.readouterr().err.count("\n") == 1


def test_frames_hold_no_text_of_an_error() -> None:
    with pytest.raises(InputError) as caught:
        log.level_of(PASSWORD)
    (frame,) = log.frames(caught.value)
    assert frame.startswith("broker/telemetry/log.py:")
    assert frame.endswith(":level_of")


@pytest.mark.parametrize("text", ["", "loud", "json"])
def test_unknown_levels_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a log level"):
        log.level_of(text)


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(InputError, match="is not a log format"):
        log.form_of("xml")
