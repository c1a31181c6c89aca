"""The first process of the switch and of each lab host. Run as a script; standard library only.

    init.py switch|host ROOT NAME      ROOT and NAME only tell a reader of `ps` whose process this is

stdin:  one line of JSON (facts), later one more line: commit. End of file before it: we end, and the kernel
        takes the namespaces with everything in them.
stdout: lines of JSON: {"pid": N} as the machine counts, {"ready": 1}, or {"error": "why"}.
stderr: the log.

A lab host sees the machine's tree with these differences, all of them mounts in its own mount namespace:
    /proc, /run, /dev/shm, /dev/pts, /var/log      new ones
    /etc                                           the machine's, with our files laid over it; writes stay in memory
    /usr, /boot                                    read-only
    /var/lib                                       the machine's, without whatever begins with qemu-esd
    /tmp, /var/tmp, /srv, /var/lib/qemu-esd        folders of this host on the machine's disk
    /var/lib/qemu-esd-home                         root's home, likewise
    /etc/libvirt, /var/lib/libvirt, /var/cache     likewise, where the lab has libvirt
    the lab's own folders and every ~/.ssh         empty
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypedDict

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWPID, _CLONE_NEWNET = 0x20000000, 0x40000000
_HOST_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18

# Folder of every host below its data folder on the machine → where the host sees it.
DISK_FOLDERS = {
    "tmp": "/tmp",
    "var-tmp": "/var/tmp",
    "srv": "/srv",
    "state": "/var/lib/qemu-esd",
    "home": "/var/lib/qemu-esd-home",
}
_READ_ONLY = ("/usr", "/boot")
_RUN_FOLDERS = (("/run/sshd", 0o755), ("/run/lock", 0o1777), ("/run/user", 0o755))

_libc = ctypes.CDLL(None, use_errno=True)


class Facts(TypedDict):
    """What we are told on stdin. All but `lock` is for hosts only.

    `lock`: a descriptor to keep open until the commit. `etc`: path below /etc → (mode, content).
    `data`: the host's data folder on the machine. `disks`: name of a folder in it → where the host sees that.
    `hidden`: folders to cover. `programs`: the argv of each daemon.
    """

    lock: int
    hostname: str
    etc: dict[str, tuple[int, str]]
    data: str
    disks: dict[str, str]
    hidden: list[str]
    programs: list[list[str]]


def main() -> None:
    facts = _read_facts()
    os.set_inheritable(facts["lock"], False)
    try:
        if sys.argv[1] == "switch":
            _become_switch(facts)
        else:
            _become_host(facts)
    except OSError as error:
        _tell(error=str(error))
        sys.exit(1)


def _become_switch(facts: Facts) -> NoReturn:
    _unshare(_CLONE_NEWNET)
    _fork()
    _tell(ready=1)
    _await_commit(facts["lock"])
    while True:
        signal.pause()


def _become_host(facts: Facts) -> None:
    _unshare(_HOST_NAMESPACES)
    _fork()
    # Unblocked, a SIGCHLD or SIGTERM before the loop would be lost; SIGINT must not raise in PID 1.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    socket.sethostname(facts["hostname"])
    _arrange_mounts(facts)
    running = {_start(argv): argv for argv in facts["programs"]}
    _tell(ready=1)
    _await_commit(facts["lock"])
    _supervise(running)


def _fork() -> None:
    """Go on as a child that nobody waits for (in a new PID namespace: as its first process)."""
    pid = os.fork()
    if pid:
        _tell(pid=pid)
        os._exit(0)


# ---- mounts


def _arrange_mounts(facts: Facts) -> None:
    os.umask(0o022)
    # Opened before anything hides them: the data folder may well lie below /tmp or /run.
    disks = {target: os.open(Path(facts["data"], name), os.O_PATH) for name, target in facts["disks"].items()}
    _mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount_memory()
    _lay_over_etc(facts["etc"])
    _copy_folder_by_binds(Path("/var/lib"), without="qemu-esd")
    for target, folder in disks.items():
        Path(target).mkdir(exist_ok=True)
        _mount(f"/proc/self/fd/{folder}", target, flags=_MS_BIND)
        os.close(folder)
    for path in filter(os.path.isdir, _READ_ONLY):
        _mount(path, path, flags=_MS_BIND | _MS_REC)
        _mount("none", path, flags=_MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    for path in filter(os.path.isdir, facts["hidden"]):
        _mount("none", path, "tmpfs", _MS_RDONLY, "size=4k,mode=755")


def _mount_memory() -> None:
    _mount("run", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    for path, mode in _RUN_FOLDERS:
        Path(path).mkdir()
        Path(path).chmod(mode)
    _mount("shm", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    _mount("log", "/var/log", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    _mount("devpts", "/dev/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")


def _lay_over_etc(files: dict[str, tuple[int, str]]) -> None:
    """`files`: path below /etc → (mode, content). The lower layer is the machine's /etc, which nobody writes to."""
    for folder in ("/run/etc", "/run/etc/upper", "/run/etc/work"):
        Path(folder).mkdir()
    for name, (mode, content) in files.items():
        path = Path("/run/etc/upper", name)
        path.parent.mkdir(exist_ok=True)
        path.touch(mode)
        path.write_text(content)
    _mount("etc", "/etc", "overlay", options="lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work")


def _copy_folder_by_binds(folder: Path, without: str) -> None:
    """Replace `folder` by one in memory with the same entries, so that we can add mount points to it.

    The machine's own folder gets nothing, and so nothing has to be removed from it whatever happens to us.
    Names that begin with `without` are left out: what our program or another lab keeps on the machine.
    """
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(without)]
    hidden = os.open(folder, os.O_PATH)
    _mount("none", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    for name in names:
        # The machine goes on living: an entry may be gone by now.
        with suppress(FileNotFoundError):
            _bind_entry(Path(f"/proc/self/fd/{hidden}", name), folder / name)
    os.close(hidden)


def _bind_entry(old: Path, new: Path) -> None:
    if old.is_symlink():
        new.symlink_to(old.readlink())
        return
    if old.is_dir():
        new.mkdir()
    else:
        new.touch()
    _mount(str(old), str(new), flags=_MS_BIND | _MS_REC)


def _mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    words = [os.fsencode(word) for word in (source, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount on {target}: {os.strerror(error)}")


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"new namespaces: {os.strerror(error)}")


# ---- the commit


def _read_facts() -> Facts:
    # Not through a buffer: the line that follows later is for the forked child.
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            sys.exit(1)
        line += part
    facts: Facts = json.loads(line)
    return facts


def _tell(**message: object) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _await_commit(lock: int) -> None:
    if not os.read(0, 1):
        os._exit(1)
    # Before the end of our stdout, which tells that all is done.
    os.close(lock)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    os.close(null)


# ---- PID 1


def _start(argv: list[str]) -> int:
    return os.posix_spawn(
        argv[0],
        argv,
        {"PATH": os.environ["PATH"]},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGPIPE],
    )


def _supervise(running: dict[int, list[str]]) -> None:
    """Reap, start a daemon again when it dies, and return at SIGTERM; our end is the end of every process here.

    `running`: process id → argv of each daemon.
    """
    while signal.sigwait({signal.SIGCHLD, signal.SIGTERM}) != signal.SIGTERM:
        for pid in _reap() & running.keys():
            # A broken one must not become a busy loop; SIGTERM still ends us at once.
            if signal.sigtimedwait({signal.SIGTERM}, 0.2) is not None:
                return
            argv = running.pop(pid)
            running[_start(argv)] = argv


def _reap() -> set[int]:
    ended: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.add(pid)


if __name__ == "__main__":
    main()
