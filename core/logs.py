"""Log lines as JSON, one object a line, with the request that caused them.

    {"at": "2026-01-02T03:04:05.678Z", "level": "ERROR", "logger": "consilium", "process": "web", "request_id": "...", "message": "..."}

`request_id` is null outside a request. Every process of the product calls `log_as_json` once, before it does anything else; uvicorn's,
Streamlit's and the libraries' own lines take the same form. Secrets and texts of samples are never logged, by whoever logs; a one-time
link in a path is masked where paths are logged (app.request_log).
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any

#: the request being answered; set by app.request_log and, for a page's script, by its entry
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
#: uvicorn and Streamlit give their loggers handlers of their own and keep them from the root
WITH_OWN_HANDLERS = ("uvicorn", "streamlit", "websockets", "gradio")


class JsonLines(logging.Formatter):
    """One object a line. Fields given as `extra={"fields": {...}}` stand beside the message."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "at": at,
            "level": record.levelname,
            "logger": record.name,
            "process": self.process,
            "request_id": REQUEST_ID.get(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json(process: str, *, stream: IO[str] | None = None, level: int = logging.INFO) -> None:
    """Send every line of this process to `stream` (stderr, which the launcher keeps as logs/<process>.log) as JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [h for h in root.handlers if not isinstance(h.formatter, JsonLines)] + [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("consilium").setLevel(level)
    logging.captureWarnings(True)
    _take_over()
    sys.excepthook = _on_crash


def _take_over() -> None:
    """Loggers that were given a handler of their own hand their lines to the root instead."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in WITH_OWN_HANDLERS:
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True


def _on_crash(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
    else:
        logging.getLogger("consilium").critical("the process ends: %s", kind.__name__, exc_info=(kind, error, where))
