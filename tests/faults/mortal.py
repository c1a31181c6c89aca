"""The command line, killed as by `kill -9` right after a record of its journal is on the disk.

    python -m tests.faults.mortal RECORD WORDS...

RECORD: the number of the record, counted in this process from 1. A process that does not come so far ends by itself.
"""

from __future__ import annotations

import os
import signal
import sys

from qemu_esd.cli.app import main
from qemu_esd.journal.store import Journal
from qemu_esd.model.record import Entry


def be_mortal(last: int) -> None:
    """Let this process die after the record `last`; what it was is told on stderr."""
    append, written = Journal.append, 0

    def append_and_die(journal: Journal, entry: Entry) -> None:
        nonlocal written
        append(journal, entry)
        written += 1
        if written == last:
            print(entry, file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append_and_die  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    be_mortal(int(sys.argv[1]))
    sys.argv[:2] = ["qemu-esd"]
    main()
