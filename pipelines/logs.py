"""Logging of the commands: lines for people, or one JSON object a line; to standard error, and never with a secret."""

from __future__ import annotations

import datetime
import json
import logging
import math
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, TextIO

from pipelines.printable import printable

TEXT, JSON = FORMATS = ("text", "json")

OURS = ("pipelines", "transforms", "schemas", "playrelay")
"""The product's own loggers; of others' only warnings and errors are written."""

SEVERITIES = (
    (logging.CRITICAL, "CRITICAL"),
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARNING"),
    (logging.INFO, "INFO"),
    (logging.DEBUG, "DEBUG"),
    (0, "DEFAULT"),
)
"""Levels from which on a record has a severity of Google Cloud Logging (LogEntry, LogSeverity)."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_log = logging.getLogger(__name__)


def set_up(format: str = TEXT, level: int = logging.INFO) -> None:
    """Writes the product's log records from `level` on, others' warnings, Python's warnings and what ends a thread or
    the process unexpectedly. A second call replaces the first.

    format: `text`: time, severity, message, `key=value` for each extra field, then the traceback. `json`: an object a line
    with time (RFC 3339), severity, message, logger, and where there are any fields and exception (the traceback).
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _StandardError):
            root.removeHandler(handler)
    handler = _StandardError()
    handler.setFormatter(_Json() if format == JSON else _Text())
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    # It logs the traceback of whatever a step raises, once for each step before it; who runs the pipeline gets it anyway.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    logging.captureWarnings(False)  # whoever put its own in between is forgotten
    logging.captureWarnings(True)
    if sys.excepthook is sys.__excepthook__:  # whoever put another there, a debugger or a test, wants to know
        sys.excepthook = _process_ended
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_ended


def tell(lines: Iterable[str]) -> None:
    """Writes lines for whoever started the command to standard error, where they act on no terminal."""
    for line in lines:
        print(printable(hidden(line)), file=sys.stderr)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the time, which tests and progress displays exchange."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute in the base class
        return sys.stderr


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Time, severity and message in one line, and the traceback below it."""
        when = datetime.datetime.fromtimestamp(record.created).strftime("%Y-%m-%d %H:%M:%S")
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        # A line break would let a message write lines of its own.
        message = printable(hidden(_message(record)) + fields).replace("\n", "\\n")
        trace = _trace(record)
        below = "".join(f"\n    {line}" for line in printable(trace).splitlines())
        return f"{when} {_severity(record.levelno)} {message}{below}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object in one line, in ASCII, so that nothing in it acts on a terminal."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "severity": _severity(record.levelno),
            "message": hidden(_message(record)),
            "logger": record.name,
        }
        fields, trace = _fields(record), _trace(record)
        if fields:
            line["fields"] = fields
        if trace:
            line["exception"] = trace
        return json.dumps(line)


def hidden(text: str) -> str:
    """The text without any secret that this process knows."""
    # Imported here: whoever has no credentials yet need not wait for what reads them.
    credentials = sys.modules.get("transforms.credentials")
    return text if credentials is None else str(credentials.redact_known(text))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit: shown, as what was to be said matters more
        return f"{record.msg} {record.args}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {hidden(key): _plain(value) for key, value in record.__dict__.items() if key not in _STANDARD}


def _plain(value: Any) -> Any:
    """A field's value as JSON has it, its texts without secrets."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {hidden(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return hidden(str(value))


def _trace(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[1] is not None:
        parts += traceback.format_exception(record.exc_info[1])
    if record.stack_info:
        parts.append(record.stack_info)
    return hidden("".join(parts).rstrip("\n"))


def _severity(level: int) -> str:
    return next(name for least, name in SEVERITIES if level >= least)


def _process_ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _log.error("interrupted")
        return
    _log.critical("ended by an error that is not expected", exc_info=(kind, error, trace))


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is None or issubclass(ended.exc_type, SystemExit):
        return
    name = ended.thread.name if ended.thread is not None else "a thread"
    _log.critical(
        "%s ended by an error that is not expected",
        name,
        exc_info=(ended.exc_type, ended.exc_value, ended.exc_traceback),
    )
