"""A key of one migration's tunnel: made on the target, allowed on the source for forwarding and nothing else."""

from __future__ import annotations

from qemu_esd.hosts.base import Host, shell

_ALLOW = r"""
set -e
umask 077
mkdir -p -- "$HOME/.ssh"
f=$HOME/.ssh/authorized_keys
touch -- "$f"
if grep -q -- " $2\$" "$f"; then exit 0; fi
if [ -s "$f" ] && [ -n "$(tail -c 1 -- "$f")" ]; then echo >>"$f"; fi
printf '%s\n' "$1" >>"$f"
"""

# The file is the user's way in: it is replaced in one step, and only by a whole one. It may be a link, and stays it.
_WITHDRAW = r"""
set -e
umask 077
[ -e "$HOME/.ssh/authorized_keys" ] || exit 0
f=$(readlink -f -- "$HOME/.ssh/authorized_keys")
if grep -q -- " $1\$" "$f"; then
    trap 'rm -f -- "$f.qemu-esd"' EXIT
    cp -pT -- "$f" "$f.qemu-esd"
    grep -v -- " $1\$" "$f" >"$f.qemu-esd" || [ $? = 1 ]
    sync -- "$f.qemu-esd"
    mv -fT -- "$f.qemu-esd" "$f"
fi
"""


def comment_of(migration: str) -> str:
    """What marks our line in authorized_keys."""
    return f"qemu-esd-migration-{migration}"


async def generate(host: Host, path: str, comment: str) -> str:
    """A new key pair at `path` on `host` (0600); returns the public line."""
    script = 'umask 077; rm -f -- "$1" "$1.pub"; ssh-keygen -q -t ed25519 -N "" -C "$2" -f "$1" && cat -- "$1.pub"'
    return (await shell(host, script, path, comment)).text.strip()


async def allow(host: Host, public: str, comment: str) -> None:
    """Let that key forward ports and sockets on `host`: no command, no terminal, no agent."""
    line = f'restrict,port-forwarding,command="/bin/false" {public}'
    await shell(host, _ALLOW, line, comment)


async def withdraw(host: Host, comment: str) -> None:
    """Take the line back; gone already is fine."""
    await shell(host, _WITHDRAW, comment)
