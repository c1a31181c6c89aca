"""The whole suite as CI wants it: pytest in folders of its own, and then nothing of it may be left on the machine.

    python -m tests.whole [PYTEST ARGUMENTS]        exit status: pytest's, or 1 if something is left

Ours is what bears a mark: a process by its arguments or environment, a mount by its place, a lab by its root. Of
folders that no lab claims every new one counts whose name says that it is the product's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

# A process that was told to end may take a moment.
ENDING_SECONDS = 5.0

Mark = re.Pattern[str]


def main(arguments: list[str]) -> int:
    base = Path(tempfile.mkdtemp(prefix="esd-"))
    # Tests become nobody, who must see that there is nothing; what is secret in it has its own modes.
    base.chmod(0o711)
    before = traces(re.compile(base.name))
    status, mark = run_pytest(base, arguments)
    left = still_there(base, mark, before)
    if left:
        told = "\n  ".join(sorted(left))
        print(f"error: the tests left something behind:\n  {told}\n  try: end or remove it; it stays to be looked at")
        return 1
    shutil.rmtree(base)
    print("nothing is left of the tests")
    return status


def run_pytest(base: Path, arguments: list[str]) -> tuple[int, Mark]:
    """Its exit status, and what its processes, mounts and labs are known by."""
    (base / "tmp").mkdir()
    # Side by side, each with a lab of its own; one more than processors, because tests also wait.
    side_by_side = [f"--numprocesses={(os.cpu_count() or 1) + 1}", "--dist=worksteal"]
    argv = [sys.executable, "-m", "pytest", "-q", "--durations=10", "-p", "no:cacheprovider", *side_by_side]
    argv += [f"--basetemp={base}/t", *arguments]
    with subprocess.Popen(argv, env=environment(base), process_group=0) as child:
        # An interrupted pytest takes down what its fixtures have put up, and so it gets the time for that. It knows no
        # SIGTERM, and would end those that run tests side by side without a word.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os.killpg(child.pid, signal.SIGINT))
        return child.wait(), re.compile(rf"{base.name}\b")


def environment(base: Path) -> Mapping[str, str]:
    """Short paths, as sockets live there. The user's own labs and guests stay out of reach."""
    own = {
        "TMPDIR": f"{base}/tmp",
        "HYPOTHESIS_STORAGE_DIRECTORY": f"{base}/hypothesis",
        "QEMU_ESD_LAB": f"{base}/lab",
        "QEMU_ESD_STATE": f"{base}/state",
        "ESD_TESTS": base.name,
    }
    return {name: value for name, value in os.environ.items() if name != "QEMU_ESD_LAB_DATA"} | own


def still_there(base: Path, mark: Mark, before: set[str]) -> set[str]:
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        left = traces(mark) - before | {str(path) for path in (base / "tmp").iterdir()}
        if not left or time.monotonic() > deadline:
            return left
        # Processes that are nobody's children any more, and labs of others that are just made: nothing to wait on.
        time.sleep(0.1)


def traces(mark: Mark) -> set[str]:
    """What the machine has of ours: processes, mounts, named network namespaces, folders."""
    mounts = {line for line in Path("/proc/self/mounts").read_text().splitlines() if mark.search(line)}
    namespaces = {str(path) for path in Path("/run").glob("netns/*")}
    return set(processes(mark)) | mounts | namespaces | set(folders(mark))


def processes(mark: Mark) -> Iterator[str]:
    for folder in Path("/proc").iterdir():
        # It may end while we look; a zombie has no words.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if folder.name.isdecimal() and folder.name != str(os.getpid()):
                words, environ = ((folder / name).read_text(errors="replace") for name in ("cmdline", "environ"))
                if mark.search(words + environ):
                    yield f"process {folder.name}: {words.replace(chr(0), ' ')}"


def folders(mark: Mark) -> Iterator[str]:
    for parent in (Path("/run"), Path("/var/lib")):
        for path in parent.glob("*esd*"):
            root = lab_of(path)
            if (root is None and path.exists()) or (root and mark.search(root)):
                yield str(path)


def lab_of(folder: Path) -> str | None:
    """The root of the lab whose folder this is."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if (folder / "lab.json").exists():
            return str(folder)
        return (folder / "lab-root").read_text()
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
