"""Commands as a user gives them: a process of its own, what it says where, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from tests.support.schema import holds

END_SECONDS = 180.0


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said where."""

    status: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


async def start(*words: str, module: str = "qemu_esd") -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, stdout=pipe, stderr=pipe, env=environment
    )


async def end(process: asyncio.subprocess.Process) -> Said:
    out, err = await asyncio.wait_for(process.communicate(), END_SECONDS)
    return Said(process.returncode, out.decode(), err.decode())


async def say(*words: str) -> Said:
    """`qemu-esd WORDS...` What it prints as JSON is held to its schema."""
    said = await end(await start(*words))
    if said.out and words[0] in ("evacuate", "migrate", "status") and "--json" in words and "--dry-run" not in words:
        holds(words[0], said.json)
    return said


async def say_and_die(moment: int | str, *words: str) -> Said:
    """The same, killed at that moment, as tests/faults/mortal.py has it: after a record, or before a state.

    Its last line on stderr is the record.
    """
    return await end(await start(str(moment), *words, module="tests.faults.mortal"))
