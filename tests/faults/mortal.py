"""The command line, killed as by `kill -9` right after a record of its journal is on the disk, or before it is written.

    python -m tests.faults.mortal RECORD WORDS...

RECORD: the number of the record after which it dies, counted in this process from 1; or the state that it does not come
to write down any more. A process that does not come so far ends by itself.
"""

from __future__ import annotations

import os
import signal
import sys

from qemu_esd.cli.app import main
from qemu_esd.journal.store import Journal
from qemu_esd.model.record import Entered, Entry


def be_mortal(last: str) -> None:
    """Let this process die there; what the record was is told on stderr."""
    append, written = Journal.append, 0

    def append_and_die(journal: Journal, entry: Entry) -> None:
        nonlocal written
        if isinstance(entry, Entered) and entry.state == last:
            die(entry)
        append(journal, entry)
        written += 1
        if str(written) == last:
            die(entry)

    Journal.append = append_and_die  # type: ignore[method-assign, assignment]


def die(entry: Entry) -> None:
    print(entry, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    be_mortal(sys.argv[1])
    sys.argv[:2] = ["qemu-esd"]
    main()
