"""The server's log: a line for each record, for people or for programs, with the job that it is about.

What people write into workflows is not in it below the level of warnings, and keys are nowhere in it.
"""

import json
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, get_args

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

_JOB: ContextVar[str | None] = ContextVar("job", default=None)


@contextmanager
def about_job(job_id: str) -> Generator[None]:
    """What is logged meanwhile, here or in tasks begun here, is about this job."""
    token = _JOB.set(job_id)
    try:
        yield
    finally:
        _JOB.reset(token)


def log_to_stderr(level: str, form: Format, requests: bool) -> None:
    """Log from now on.

    Args:
        requests: whether each request is a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    handler.addFilter(_add_job)
    logger = logging.getLogger("latentloom")
    logger.handlers = [handler]
    logger.setLevel(level)
    if not requests:
        logging.getLogger("latentloom.access").setLevel(logging.WARNING)


def _add_job(record: logging.LogRecord) -> bool:
    # What a worker says comes with the job that it was at.
    if getattr(record, "job", None) is None:
        record.job = _JOB.get()
    return True


class TextLines(logging.Formatter):
    """Time, level, message, and the job where the message does not name it itself."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        job: str | None = getattr(record, "job", None)
        return line if job is None or job in line else f"{line} [job {job}]"


class JsonLines(logging.Formatter):
    """A JSON object: `time` in UTC, `level`, `logger`, `message`; where there are any, `job`, `worker`, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("job", "worker"):
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
