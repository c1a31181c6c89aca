"""virtqemud instead of libvirtd, as distributions have it whose libvirt is a daemon for each driver."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.virtqemud import build


@contextmanager
def unpacked() -> Iterator[Path]:
    """The files to be laid over /usr. Raises FetchError."""
    program = build()
    with tempfile.TemporaryDirectory(prefix="esd-test-", dir="/var/cache") as folder:
        sbin = Path(folder, "usr/sbin")
        sbin.mkdir(parents=True)
        shutil.copy(program, sbin)
        # What hides a file of the layer below.
        os.mknod(sbin / "libvirtd", stat.S_IFCHR, os.makedev(0, 0))
        yield sbin.parent
