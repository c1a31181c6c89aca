"""Processes on a host that outlive us: QEMUs, path handlers, tunnels, watches.

Under systemd they are transient units; elsewhere a plain daemon in POSIX shell keeps them. Each unit has a folder with
`run` (what it executes, read anew at every restart), `log`, `pid`, and `exit` (its last exit status).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from qemu_esd.errors import CommandFailedError, EsdError
from qemu_esd.hosts import files
from qemu_esd.hosts.base import Host, shell

READY_SECONDS = 20

# The daemon leads a session and a process group of its own: to stop the unit is to signal the group.
_SUPERVISE = r"""
cd -- "$1" || exit 1
echo $$ >supervisor
while :; do
    sh ./run >>log 2>&1 </dev/null &
    echo $! >pid
    wait $!
    status=$?
    rm -f pid
    echo $status >exit
    if [ -e stop ] || [ "$2" = once ]; then break; fi
    sleep 1
done
"""

# The socket of an earlier run would look like readiness, so it goes first ($5 is empty where none is waited for).
_START = r"""
set -eu
umask 077
mkdir -p -- "$1"
cd -- "$1"
rm -f stop pid exit supervisor
if [ -n "$5" ]; then rm -f -- "$5"; fi
cat >run.new
mv -f run.new run
if [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ]; then
    restart=no; if [ "$2" = forever ]; then restart=always; fi
    # In files, because systemd expands what is in its arguments.
    echo 'echo $$ >pid; exec sh ./run >>log 2>&1 </dev/null' >begin
    echo 'rm -f pid; echo "$EXIT_STATUS" >exit' >end
    systemd-run --quiet --collect --unit="$4" --working-directory="$1" -p Restart=$restart -p RestartSec=1 \
        -p StartLimitIntervalSec=0 -p "ExecStopPost=/bin/sh ./end" /bin/sh ./begin
else
    setsid -f sh -c "$3" esd-unit "$1" "$2" </dev/null >/dev/null 2>&1
    # Without its id nobody could stop it.
    n=0
    until [ -s supervisor ]; do
        n=$((n + 1)); if [ $n -gt 500 ]; then echo "the supervisor did not start" >&2; exit 1; fi
        sleep 0.01
    done
fi
"""

# A socket has no event in POSIX shell: look often, and see at once when the process has ended. A socket that is in the
# file system may be bound and not listen yet; the kernel's table tells (flag 00010000: it accepts connections).
_LISTENS = r"""
listens() {
    awk -v path="$1" '$4 == "00010000" && substr($0, length($0) - length(path)) == " " path { found = 1 }
        END { exit !found }' /proc/net/unix
}
"""

_AWAIT = (
    _LISTENS
    + r"""
n=0
until listens "$5"; do
    if [ -e exit ] && [ ! -e pid ]; then tail -n 5 log >&2; exit 1; fi
    n=$((n + 1)); if [ $n -gt "$6" ]; then echo "no socket $5 in time" >&2; tail -n 5 log >&2; exit 1; fi
    sleep 0.01
done
"""
)

# A process id in a file may have been given to somebody else: it is ours only while it works in the unit's folder.
_OURS = r"""
ours() { [ -n "$1" ] && [ "/proc/$1/cwd" -ef "$2" ]; }
"""

# A process that has ended and that nobody has waited for yet is no reason to wait.
_STOP = (
    _OURS
    + r"""
alive() {
    cat /proc/[0-9]*/stat 2>/dev/null |
        awk -v group="$1" '{ sub(/.*\) /, "") } $3 == group && $1 !~ /[ZX]/ { found = 1 } END { exit !found }'
}
[ -d "$1" ] || exit 0
: >"$1/stop"
if [ -d /run/systemd/system ] && systemctl cat "$2" >/dev/null 2>&1; then systemctl stop "$2"; fi
s=$(cat -- "$1/supervisor" 2>/dev/null)
p=$(cat -- "$1/pid" 2>/dev/null)
# The group outlives its leader: its id is nobody else's while one of its processes is left.
if [ -n "$s" ] && { ours "$s" "$1" || ours "$p" "$1"; }; then
    kill -TERM "-$s"
    n=0
    while alive "$s"; do
        n=$((n + 1))
        if [ $n = 500 ]; then kill -KILL "-$s"; fi
        if [ $n = 1000 ]; then echo "processes of $1 do not end" >&2; exit 1; fi
        sleep 0.02
    done
fi
rm -rf -- "$1"
"""
)

_STATE = (
    _OURS
    + r"""
[ -d "$1" ] || { echo gone; exit; }
if [ -d /run/systemd/system ] && systemctl is-active --quiet "$2"; then echo running; exit; fi
s=$(cat -- "$1/supervisor" 2>/dev/null)
p=$(cat -- "$1/pid" 2>/dev/null)
if ours "$p" "$1" || { [ -n "$p" ] && ours "$s" "$1"; }; then echo running; else echo ended; fi
"""
)


@dataclass(frozen=True)
class Service:
    """A unit: `folder` (its files), `argv`, and whether it is started again when it ends."""

    name: str
    folder: str
    argv: tuple[str, ...]
    restart: bool = False


def _unit(name: str) -> str:
    return f"qemu-esd-{name}.service"


def run_script(argv: Sequence[str]) -> bytes:
    """The `run` file of a unit. The mask keeps sockets and logs to ourselves."""
    return os.fsencode(f"umask 077\nexec {shlex.join(argv)}\n")


async def argv_of(host: Host, folder: str) -> tuple[str, ...]:
    """What a unit executes. Raises EsdError if it is not told there."""
    script = await files.read(host, f"{folder}/run")
    lines = os.fsdecode(script or b"").partition("\n")[2]
    if not lines.startswith("exec "):
        raise EsdError(f"{folder}/run does not say what is to run", host=host.name)
    return tuple(shlex.split(lines)[1:])


async def start(host: Host, service: Service) -> None:
    """Start the unit; returns when it has been started, not when it is ready."""
    await _run(host, service, _START, "")


async def start_ready(host: Host, service: Service, socket: str) -> None:
    """Start the unit and wait until it listens on the unix socket `socket`; raises with its own last words."""
    try:
        await _run(host, service, _START + _AWAIT, socket, str(READY_SECONDS * 100))
    except CommandFailedError as error:
        words = error.stderr.strip() or "it ended without a word"
        raise EsdError(f"{service.name} did not start: {words}", host=host.name) from error


async def _run(host: Host, service: Service, script: str, *more: str) -> None:
    mode = "forever" if service.restart else "once"
    words = (service.folder, mode, _SUPERVISE, _unit(service.name), *more)
    await shell(host, script, *words, stdin=run_script(service.argv))


async def rewrite(host: Host, folder: str, argv: Sequence[str]) -> None:
    """Change what a unit executes at its next restart, also after a power cut; the running process is left alone."""
    await files.write(host, f"{folder}/run", run_script(argv))
    await files.sync_folder(host, folder)


async def stop(host: Host, folder: str, name: str) -> None:
    """End the unit and all its processes, and remove its folder. Gone already is fine."""
    await shell(host, _STOP, folder, _unit(name))


async def state(host: Host, folder: str, name: str) -> str:
    """ "running", "ended" or "gone"."""
    return (await shell(host, _STATE, folder, _unit(name))).text.strip()


async def listens(host: Host, socket: str) -> bool:
    """Whether somebody accepts connections on the unix socket `socket`; its file alone says nothing."""
    return (await shell(host, _LISTENS + 'if listens "$1"; then echo yes; fi', socket)).text.strip() == "yes"


async def last_words(host: Host, folder: str) -> str:
    """The end of a unit's log in one line."""
    log = (await files.read(host, f"{folder}/log") or b"").decode(errors="replace")
    status = (await files.read(host, f"{folder}/exit") or b"?").decode().strip()
    return "; ".join(log.strip().splitlines()[-2:]) or f"it ended with status {status} and without a word"
