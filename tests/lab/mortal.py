"""Run `lab.up(N)` or `lab.down()` and kill ourselves, as `kill -9` does, at a given place.

    mortal.py up|up-libvirt|down HOSTS PLACE

PLACE: `never` (then we print how many steps there are), the number of a step, or FUNCTION:N, the N-th time that
a function of the lab is entered. A step is a call or a return, of Python or of C, in a function of the lab:
between two steps there is at most one effect on the machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections import Counter
from types import FrameType

from qemu_esd.hosts import lab

_HERE = "/hosts/lab/"
# It looks whether a host answers, as often as that takes, and has no effect on the machine.
_ONLY_LOOKS = "/hosts/lab/connect.py"


def main() -> None:
    action, hosts, place = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    passed: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if _HERE not in file or file.endswith(_ONLY_LOOKS):
            return
        passed["step"] += 1
        name = frame.f_code.co_name
        if event == "call":
            passed[name] += 1
        if place in (str(passed["step"]), f"{name}:{passed[name]}"):
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(watch)
    asyncio.run(lab.down() if action == "down" else lab.up(hosts, libvirt=action == "up-libvirt"))
    print(passed["step"])


if __name__ == "__main__":
    main()
