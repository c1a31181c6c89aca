"""The guard of a path handler: it serves only images that are what they were when they were left here.

QEMU would open whatever has the name: another image, a part of one, one that somebody has written to since; and the
guest would read that in the middle of its data. (A smaller one ends a QEMU 10.0 that reads from it.) So each start
compares what `stat` says of the files, and so does a watch while it runs. As long as one is not what it was nobody is
served, the guest waits, and the log says why; what is put right is served again by itself.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence

from qemu_esd.model.disk import Image, images
from qemu_esd.model.record import LinkMember

# Of stat(1). Not the time of the inode's last change: our own rename changes that.
KEPT = "inode %i, %s bytes, written %.9Y"
# What is written through us changes; a raw image keeps its size all the same.
WRITTEN_RAW, WRITTEN = "inode %i, %s bytes", "inode %i"

# In the folder of the unit: what there is to compare. None before the images are handed over.
STAMPS = "stamps"

# `same`, in that folder, says what is not what it was.
SAME = r"""
same() {
    [ -e ./stamps ] || return 0
    . ./stamps
    while [ $# -gt 0 ]; do
        now=$(stat -L -c "$2" -- "$1" 2>/dev/null) || now="not there"
        if [ "$now" != "$3" ]; then echo "$1 is not the image that was left here: $now; it was: $3"; return 1; fi
        shift 3
    done
}
"""

# The watch ends with the process that it watches: `pid` in the unit's folder says whether that is still the one. It may
# not be written yet when this starts. Outside of a unit there is no watch.
_GUARD = (
    SAME
    + r"""
told=
until why=$(same); do
    if [ "$why" != "$told" ]; then echo "$why" >&2; told=$why; fi
    sleep 1
done
watch() {
    while sleep 5 && [ "$(cat pid 2>/dev/null)" = $$ ]; do
        if ! same >&2; then kill $$; exit; fi
    done
}
if [ -e supervisor ] || [ -e pid ]; then watch & fi
exec "$@"
"""
)


def questions(members: Iterable[LinkMember]) -> Iterator[tuple[str, str]]:
    """Each image with what is asked of it, in the order of the members' stamps."""
    for member in members:
        for image in images(member.chain):
            yield image.path, _asked(member, image)


def _asked(member: LinkMember, image: Image) -> str:
    if not (member.writable and image is member.chain[0]):
        return KEPT
    return WRITTEN_RAW if image.format == "raw" else WRITTEN


def stamps(members: Sequence[LinkMember]) -> bytes:
    """The content of STAMPS: shell that sets $1, $2, $3 ... to an image, what is asked of it, and the answer."""
    answers = [stamp for member in members for stamp in member.stamps]
    rows = zip(questions(members), answers, strict=True)
    words = [word for (path, asked), stamp in rows for word in (path, asked, stamp)]
    return os.fsencode(f"set -- {shlex.join(words)}\n")


def guarded(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs `argv`, in the unit's folder, as long as the images are what they were."""
    return ("sh", "-c", _GUARD, "esd-guard", *argv)
