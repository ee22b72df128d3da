"""Logging: loguru, as text for people or one JSON object a line for machines."""

import json
import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message

TEXT = "{time:YYYY-MM-DD HH:mm:ss.SSS!UTC} {level: <7} {extra[service]} | {message}"


class _ToLoguru(logging.Handler):
    """Sends what libraries log through `logging` the same way as our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        logger.opt(exception=record.exc_info, depth=6).log(level, "{}", record.getMessage())


def _write_json(message: "Message") -> None:
    record = message.record
    line: dict[str, Any] = {
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "service": record["extra"].get("service"),
        "message": record["message"],
        "where": f"{record['name']}:{record['line']}",
    }
    if record["exception"] is not None:
        line["error"] = repr(record["exception"].value)
        line["traceback"] = "".join(traceback.format_exception(*record["exception"]))
    sys.stderr.write(json.dumps(line) + "\n")


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    logger.opt(exception=(kind, error, trace)).critical("uncaught {}", kind.__name__)


def configure_logging(service: str, level: str, fmt: str) -> None:
    """Send all logging, ours and the libraries', to standard error."""
    logger.remove()
    # backtrace and diagnose would print the values of variables, secrets among them.
    options: dict[str, Any] = {"level": level, "backtrace": False, "diagnose": False}
    if fmt == "json":
        logger.add(_write_json, **options)
    else:
        logger.add(sys.stderr, format=TEXT, **options)
    logger.configure(extra={"service": service})
    # A crash has to be readable by the same machine as every other line.
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda of: _log_uncaught(of.exc_type, of.exc_value, of.exc_traceback)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    for name in ("quixstreams", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING if level != "DEBUG" else logging.DEBUG)
