"""The reference of the commands is what the program says, and says of each exit status what it means."""

from __future__ import annotations

from pathlib import Path

from qemu_esd import errors
from qemu_esd.cli import reference

PAGE = Path(__file__).resolve().parents[2] / "docs/reference.md"


def test_the_reference_is_what_the_program_says() -> None:
    assert PAGE.read_text() == reference.document(), "python3 tasks.py docs writes it anew"


def test_each_exit_status_is_explained() -> None:
    """Zero is no error."""
    known = {error.exit_status for error in subclasses(errors.EsdError)}
    assert known | {0} == {ending.status for ending in errors.ENDINGS}


def subclasses(kind: type[errors.EsdError]) -> set[type[errors.EsdError]]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))
