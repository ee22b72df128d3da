"""Log lines are text for people or JSON for machines, and no variable's value is ever among them."""

import json
import re
import subprocess
import sys

import pytest

CANARY = "canary-4711"

PROGRAM = """
import logging, sys, threading
from loguru import logger
from services.common.logs import configure_logging

def raises():
    password = "canary-" + "4711"
    raise RuntimeError("it broke")

configure_logging("test", sys.argv[2], sys.argv[1])
logger.debug("quiet")
logger.info("hello {}", "wörld")
logger.info("two\\nlines, and {braces} <red>tags</red>")
logging.getLogger("library").warning("a warning of %s", "theirs")
logging.getLogger("library").info("chatter")
try:
    raises()
except RuntimeError:
    logger.exception("caught")
    logging.getLogger("library").exception("theirs")
thread = threading.Thread(target=raises)
thread.start()
thread.join()
raises()
"""


@pytest.fixture(scope="module")
def logged() -> dict[str, str]:
    """What the program says in each format."""
    texts = {}
    for fmt in ("text", "json"):
        command = [sys.executable, "-c", PROGRAM, fmt, "INFO"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert ended.returncode == 1
        assert ended.stdout == ""
        texts[fmt] = ended.stderr
    return texts


def test_text_has_time_level_and_service_and_one_line_a_record(logged: dict[str, str]) -> None:
    lines = logged["text"].splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    test \| hello wörld", lines[0])
    assert lines[1:3] == [lines[1][:39] + "two", "lines, and {braces} <red>tags</red>"]
    assert lines[3].endswith("WARNING test | a warning of theirs")
    assert "" not in lines


def test_text_shows_each_traceback_once(logged: dict[str, str]) -> None:
    # Caught by us, logged by a library, raised in a thread, and raised at last in the main thread.
    assert logged["text"].count("Traceback (most recent call last)") == 4
    assert logged["text"].count("RuntimeError: it broke") == 4


def test_json_is_one_object_a_line_even_at_the_end_of_the_process(logged: dict[str, str]) -> None:
    lines = [json.loads(line) for line in logged["json"].splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("INFO", "hello wörld"),
        ("INFO", "two\nlines, and {braces} <red>tags</red>"),
        ("WARNING", "a warning of theirs"),
        ("ERROR", "caught"),
        ("ERROR", "theirs"),
        ("CRITICAL", "uncaught RuntimeError"),
        ("CRITICAL", "uncaught RuntimeError"),
    ]
    assert {line["service"] for line in lines} == {"test"}
    for line in lines[3:]:
        assert line["error"] == "RuntimeError('it broke')"
        assert "in raises" in line["traceback"]
    assert "error" not in lines[0]


@pytest.mark.parametrize("fmt", ["text", "json"])
def test_a_traceback_shows_no_values_of_variables(logged: dict[str, str], fmt: str) -> None:
    assert "in raises" in logged[fmt]
    assert CANARY not in logged[fmt]


def test_lines_below_the_level_are_not_shown(logged: dict[str, str]) -> None:
    assert "quiet" not in logged["text"]
    assert "chatter" not in logged["text"]
