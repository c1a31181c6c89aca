"""A process that writes a journal until it is killed: `python writer.py`, with QEMU_ESD_STATE in its environment.

It says a line on stdout when the journal is open, and the number of each entry once the entry is written.
"""

from __future__ import annotations

import itertools

from qemu_esd.journal import store
from qemu_esd.model.record import Held
from qemu_esd.model.resource import File
from tests.support.samples import plan

ID = "0badcafe"


def entry(number: int) -> Held:
    """Long enough that a page of the file holds only a few."""
    return Held(File("a", f"/{number}/" + "x" * 900))


def main() -> None:
    with store.begin(plan(ID)) as journal:
        print("open", flush=True)
        for number in itertools.count():
            journal.append(entry(number))
            print(number, flush=True)


if __name__ == "__main__":
    main()
