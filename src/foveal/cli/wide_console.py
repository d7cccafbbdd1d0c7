"""A console for tables with many columns."""

from __future__ import annotations

import sys

from rich.console import Console

__all__ = ["wide_console"]

_FILE_COLUMNS = 140


def wide_console() -> Console:
    """As wide as the terminal; into a file or pipe, where rich assumes 80 columns, wide enough to cut nothing."""
    return Console(width=None if sys.stdout.isatty() else _FILE_COLUMNS)
