"""Run `lab.up(N)` or `lab.down()` and kill ourselves, as `kill -9` does, at a given step.

    mortal.py up|down HOSTS STEP       STEP 0: never; prints how many steps there are

A step is a call that a function of the lab makes or returns from, of Python or of C: between two steps
there is at most one effect on the machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from types import FrameType

from qemu_esd.hosts import lab

_HERE = os.path.join("hosts", "lab", "")


def main() -> None:
    action, hosts, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    steps = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal steps
        if _HERE in frame.f_code.co_filename:
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    asyncio.run(_act(action, hosts))
    print(steps)


async def _act(action: str, hosts: int) -> None:
    if action == "up":
        await lab.up(hosts)
    else:
        await lab.down()


if __name__ == "__main__":
    main()
