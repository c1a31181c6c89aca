"""Names of the labs of tests."""

from __future__ import annotations

import os


def lab_name() -> str:
    """Of this process of pytest alone, and with the mark of the whole run, by which what it leaves is found."""
    return f"{os.environ.get('ESD_TESTS', 'esd-test')}-{os.getpid()}"
