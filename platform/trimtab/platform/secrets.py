"""Secrets stay out of logs: whatever looks like one is masked in every record of this process."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel, SecretStr

MASK = "***"
SHORTEST = 6  # a shorter secret would be found in innocent words
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)(x-(?:auth|subject|service)-token\W{1,6})[^\s\"',;}]+"), rf"\1{MASK}"),
    (re.compile(r"\bgAAAA[\w=-]{30,}"), MASK),  # a Fernet token
    (re.compile(r"(\b[a-z][\w+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)"), rf"\1{MASK}"),
    (
        re.compile(r"(?i)(pass(?:word|wd)?|secret|api_?key|adminpass)([\"']?\s*[:=]\s*[\"']?)[^\s\"',;}&]+"),
        rf"\1\2{MASK}",
    ),
)
_known: set[str] = set()


def mask(text: str) -> str:
    """A text without what looks like a token, a password or credentials in an address, and without known secrets."""
    for secret in _known:
        text = text.replace(secret, MASK)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def secrets_of(model: BaseModel) -> Iterable[str]:
    """All values of secret options."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, BaseModel):
            yield from secrets_of(value)


def hide_secrets(settings: BaseModel) -> None:
    """Mask secrets in all that this process logs from now on, whichever library logs it."""
    _known.update(secret for secret in secrets_of(settings) if len(secret) >= SHORTEST)
    factory: Callable[..., logging.LogRecord] = logging.getLogRecordFactory()
    if isinstance(factory, _Masking):
        return
    logging.setLogRecordFactory(_Masking(factory))


class _Masking:
    """A log record factory that masks messages and tracebacks."""

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self._inner = inner
        self._formatter = logging.Formatter()

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """One record."""
        record = self._inner(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit: logging itself complains about them
            return record
        if (masked := mask(message)) != message:
            record.msg, record.args = masked, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = mask(self._formatter.formatException(record.exc_info))
        return record
