"""A key of one migration's tunnel: made on the target, allowed on the source for forwarding and nothing else."""

from __future__ import annotations

from qemu_esd.hosts.base import Host, shell

_ALLOW = r"""
set -e
umask 077
mkdir -p -- "$HOME/.ssh"
f=$HOME/.ssh/authorized_keys
touch -- "$f"
if grep -qF -- "$2" "$f"; then exit 0; fi
if [ -s "$f" ] && [ -n "$(tail -c 1 -- "$f")" ]; then echo >>"$f"; fi
printf '%s\n' "$1" >>"$f"
"""

_WITHDRAW = r"""
set -e
umask 077
f=$HOME/.ssh/authorized_keys
if [ -e "$f" ] && grep -qF -- "$1" "$f"; then
    grep -vF -- "$1" "$f" >"$f.qemu-esd" || true
    cat -- "$f.qemu-esd" >"$f"
    rm -f -- "$f.qemu-esd"
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
