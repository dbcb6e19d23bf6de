"""Packages that only conversions need, imported when one is made."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from narupa_shared.errors import FailedPreconditionError


def imported(name: str) -> Any:
    """The module. Raises: FailedPreconditionError, which says what to install, when it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        reason = f"this needs {name.partition('.')[0]}, which is not installed ({error})"
        raise FailedPreconditionError(f"{reason}; pip install 'narupa-client[analysis]'") from None
