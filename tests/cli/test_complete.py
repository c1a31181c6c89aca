"""What shells offer: by typer's own protocol, and at the prompts of real shells."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qemu_esd.cli.complete import ssh_aliases
from qemu_esd.journal import devices, registry, store
from qemu_esd.model.policy import Handler
from qemu_esd.model.record import Entered, State
from tests.support.samples import plan

PROGRAM = Path(sys.executable).with_name("qemu-esd")
SSH = """
Host web1 web2
    HostName 192.0.2.1
Host *.example !other
host=db
Include more/*.conf
"""


@pytest.fixture(autouse=True)
def _known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two guests, one of which a migration took from host a to b and was broken off; a device; an ssh configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    registry.remember("vm1", "a")
    registry.remember("vm1", "b")
    registry.remember("web", "a")
    devices.remember("disk1", ("a", "c"))
    with store.begin(plan(vm="vm1")) as journal:
        journal.append(Entered(State.SWITCHING))
    (tmp_path / ".ssh/more").mkdir(parents=True)
    (tmp_path / ".ssh/config").write_text(SSH)
    (tmp_path / ".ssh/more/one.conf").write_text("Host inner\nInclude ../config\n")


def bash(*words: str) -> list[str]:
    """What `qemu-esd WORDS` has for its last word."""
    line = {
        "_QEMU_ESD_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(("qemu-esd", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(PROGRAM, env=os.environ | line, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("migrate", "v"), ["vm1"]),
        (("migrate", "vm1", "web"), ["web1", "web2"]),
        (("migrate", "vm1", "lo"), ["local"]),
        (("migrate", "vm1", "b", "--policy", "re"), ["redirect"]),
        (("migrate", "vm1", "b", "--from", "in"), ["inner"]),
        # As bash takes words apart.
        (("migrate", "vm1", "b", "--disk-policy", "root", "=", "m"), ["miss"]),
        (("migrate", "vm1", "b", "--disk-policy", "=", "root", "="), list(Handler)),
        (("migrate", "vm1", "--disk-policy", "root", "=", "miss", "--policy", "=", "re"), ["redirect"]),
        (("policy", "vm1", "ro"), ["root"]),
        (("policy", "vm1", "root", "m"), ["miss"]),
        (("policy", "vm1", "root", "ro"), []),
        (("policy", "web", "ro"), []),
        (("evacuate", "a", "lo"), ["local"]),
        (("settle", "w"), ["web"]),
        (("settle", "web", "v"), ["vm1"]),
        (("status", "v"), ["vm1"]),
        (("map", "vm1", "r"), ["root"]),
        (("map", "d"), ["disk1"]),
        (("vm", "stop", "v"), ["vm1"]),
        (("qmp", "vm1", "@"), ["@a"]),
        (("qmp", "vm1@"), ["vm1@a"]),
        (("qmp", "disk1@"), ["disk1@a", "disk1@c"]),
        (("device", "show", "d"), ["disk1"]),
        (("device", "move", "disk1", ""), ["a", "c"]),
        (("device", "move", "disk1", "c", "--policy", ""), ["redirect", "background", "on-demand"]),
        (("share", "vm1", "--policy", "re"), ["redirect"]),
        (("device", "create", "--host", "a,lo"), ["a,local"]),
        (("vm", "run", "--device", "d"), ["disk1"]),
        (("share", "w"), ["web"]),
        (("share", "vm1", "r"), ["root"]),
        (("share", "vm1", "--with", "a,lo"), ["a,local"]),
        (("doctor", "a", "b"), ["b"]),
        (("host", "restore", "d"), ["db"]),
        (("resume", "0"), ["0badcafe"]),
        (("report", "0"), ["0badcafe"]),
        (("graph", "v"), ["vm1"]),
        (("rollback", "vm1", "--force-lost", "a"), ["a"]),
        (("doct",), ["doctor"]),
    ],
)
def test_offered(words: tuple[str, ...], offered: list[str]) -> None:
    assert bash(*words) == offered


def test_a_damaged_file_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    for file in (tmp_path / "controller/guests").iterdir():
        file.write_text("{")
    assert bash("settle", "") == []


# A function in the place of the program tells what a line has become. The completion runs the program itself.
TELLS = {
    "bash": """qemu-esd() { echo "$@" >"$TOLD"; }""",
    "zsh": """qemu-esd() { echo "$@" >"$TOLD"; }""",
    "fish": """function qemu-esd; echo $argv >"$TOLD"; end""",
}
TYPED = {
    "migrate v\t--disk-policy root=m\t": "migrate vm1 --disk-policy root=miss",
    "qmp vm1@\t": "qmp vm1@a",
    "device move d\tc\t": "device move disk1 c",
}


@pytest.mark.parametrize("shell", TELLS)
def test_at_the_prompt_of_a_shell(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed as users install it; then somebody types, and says Tab."""
    if shutil.which(shell) is None and os.environ.get("CI") != "true":
        pytest.skip(f"no {shell}: apt-get install {shell}")
    monkeypatch.setenv("PATH", f"{PROGRAM.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    # Else fish has a folder of its own beside the tests'.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    os.mkfifo(tmp_path / "told")
    # true: the shell has to stay, to be seen as the one to install for.
    subprocess.run([shell, "-c", "qemu-esd --install-completion; true"], check=True, capture_output=True)
    with terminal(shell, "-i") as keys:
        os.write(keys, f"{TELLS[shell]}\n".encode())
        for typed, line in TYPED.items():
            os.write(keys, f"qemu-esd {typed}\n".encode())
            assert (tmp_path / "told").read_text().strip() == line


@contextmanager
def terminal(*argv: str) -> Iterator[int]:
    """A program at a terminal of its own, which is yielded. What it shows is not looked at."""
    pid, master = pty.fork()
    if pid == 0:
        os.execvp(argv[0], argv)
    reading = threading.Thread(target=_drain, args=(master,))
    reading.start()
    try:
        yield master
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        reading.join()
        os.close(master)


def _drain(master: int) -> None:
    """A full terminal would stop the program. At its end there is an error."""
    with suppress(OSError):
        while os.read(master, 4096):
            pass


def test_ssh_aliases(tmp_path: Path) -> None:
    # One that includes itself comes to an end.
    assert list(dict.fromkeys(ssh_aliases(tmp_path / ".ssh/config"))) == ["web1", "web2", "db", "inner"]
    assert list(ssh_aliases(tmp_path / "nowhere")) == []
