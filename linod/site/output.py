"""Everything a task writes or logs goes into one pipe to the daemon, in the order in which it happened.

What it prints goes there as it is; a log record goes there as a line that begins with a mark and is JSON, so that its
level, logger and place in the code are kept.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from typing import Any

MARK = "\x1e"  # the ASCII record separator: no text has it
LONGEST_MESSAGE = 16_000


class PipeHandler(logging.Handler):
    """Writes log records to standard error in the form that the daemon knows."""

    def emit(self, record: logging.LogRecord) -> None:
        # One record may come twice: from a console handler that this one replaced, and from the root's.
        if getattr(record, "linod_seen", False):
            return
        record.linod_seen = True
        try:
            sys.stdout.flush()
            os.write(2, (MARK + json.dumps(self.fields(record)) + "\n").encode())
        except Exception:
            self.handleError(record)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {
            "level": record.levelno,
            "logger": record.name,
            "message": record.getMessage()[:LONGEST_MESSAGE],
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
        }
        if record.exc_info:
            fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))[-LONGEST_MESSAGE:]
        return fields


def redirect(output: int) -> None:
    """Let everything that is written to the terminal go to this descriptor, by whomever it is written."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    for stream in streams():
        if hasattr(stream, "reconfigure"):  # the site may have put something else in its place
            stream.reconfigure(line_buffering=True)


def streams() -> list[Any]:
    """Python's output streams: the site may have put others in the place of the first ones, which are used still."""
    return [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__]


def flush() -> None:
    """Let everything be written that Python still keeps."""
    for stream in streams():
        try:
            stream.flush()
        except Exception:
            pass  # it may be closed, or be something else


def catch_log_records() -> None:
    """Put our handler in the place of each that writes to the console, and at the root."""
    root = logging.getLogger()
    if not root.handlers and root.level == logging.WARNING:
        root.setLevel(logging.INFO)  # nobody has configured logging: what tasks tell is wanted
    loggers = [logger for logger in logging.Logger.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for logger in [root, *loggers]:
        logger.handlers[:] = [replacement(handler) for handler in logger.handlers]
    if not any(isinstance(handler, PipeHandler) for handler in root.handlers):
        root.addHandler(PipeHandler())


def replacement(handler: logging.Handler) -> logging.Handler:
    """Our handler for one that writes to the console, with its level and filters; any other as it is."""
    if not (isinstance(handler, logging.StreamHandler) and is_console(handler.stream)):
        return handler
    ours = PipeHandler(handler.level)
    ours.filters = handler.filters
    return ours


def is_console(stream: Any) -> bool:
    if stream in streams():
        return True
    try:
        return stream.fileno() in (1, 2)
    except Exception:
        return False
