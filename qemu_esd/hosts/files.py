"""Files on a host. Everything that we make is 0600 in 0700 folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qemu_esd.hosts.base import Host, run, shell

# A kill of ours looks like the end of the content, so the size says whether all of it came.
_TAKE_NEW = r"""
set -e
umask 077
mkdir -p -- "$(dirname -- "$1")"
cat >"$new"
if [ "$(wc -c <"$new")" -ne "$2" ]; then rm -f -- "$new"; echo "$1: cut off" >&2; exit 1; fi
sync -- "$new"
"""

_WRITE = f"""
new=$1.new
{_TAKE_NEW}
mv -f -- "$new" "$1"
"""

# Of two that come at once one gives its file the name. The folder may vanish under us only while it is empty.
_WRITE_FIRST = f"""
new=$1.$$.new
{_TAKE_NEW}
if ln -- "$new" "$1" 2>/dev/null; then echo first; fi
rm -f -- "$new"
[ -e "$1" ]
sync -- "$(dirname -- "$1")"
"""

_RENAME = r"""
set -e
if [ -e "$1" ]; then
    if [ -e "$2" ]; then echo "$2 is there already" >&2; exit 1; fi
    mv -- "$1" "$2"
fi
sync -- "$2"
"""


# One program for a hundred files; one that is there and cannot be read counts as empty, which no record is.
_READ_ALL = r"""
for my $path (@ARGV) {
    print "+" if -e $path;
    if (open my $file, "<", $path) { local $/; print <$file> }
    print "\0";
}
"""

# What is removed meanwhile is not there; one that is there and cannot be read counts as empty, as above.
_READ_EACH = r"""
cd -- "$1" 2>/dev/null || exit 0
for file in */"$2"; do
    if text=$(cat -- "$file" 2>/dev/null) || [ -e "$file" ]; then printf '%s\0%s\0' "${file%/*}" "$text"; fi
done
"""

_LINK = r"""
set -e
[ "$1" -ef "$2" ] || ln -- "$1" "$2"
sync -- "$2" "$(dirname -- "$2")"
"""


async def write(host: Host, path: str, data: bytes) -> None:
    """Write `data` to `path` (0600) so that a kill leaves the old content or the new, never a part."""
    await shell(host, _WRITE, path, str(len(data)), stdin=data)


async def write_first(host: Host, path: str, data: bytes) -> bool:
    """The same, where there is no such file yet. False: there is, or somebody else was quicker; nothing is changed."""
    return bool((await shell(host, _WRITE_FIRST, path, str(len(data)), stdin=data)).text)


async def read(host: Host, path: str) -> bytes | None:
    """The content of `path`, or None if there is no such file."""
    done = await shell(host, 'if [ -e "$1" ]; then printf +; cat -- "$1"; fi', path)
    return done.stdout[1:] if done.stdout else None


async def read_all(host: Host, paths: Sequence[str]) -> dict[str, bytes]:
    """The contents of those of the text files `paths` that are there, in one round trip."""
    parts = (await run(host, ("perl", "-e", _READ_ALL, "--", *paths))).stdout.split(b"\0")
    return {path: part[1:] for path, part in zip(paths, parts, strict=False) if part}


async def read_each(host: Host, folder: str, name: str) -> dict[str, bytes]:
    """The content of the text file `name` in each folder in `folder` that has one, by the folder's name, sorted."""
    words = (await shell(host, _READ_EACH, folder, name)).stdout.split(b"\0")[:-1]
    return {place.decode(): text for place, text in zip(words[::2], words[1::2], strict=True)}


async def make_folders(host: Host, *paths: str) -> None:
    """Make folders (0700) with their parents."""
    await shell(host, 'umask 077; mkdir -p -- "$@" && chmod 700 -- "$@"', *paths)


async def sync_folder(host: Host, folder: str) -> None:
    """The names in a folder are on the disk."""
    await shell(host, 'sync -- "$1"', folder)


async def open_to_pass(host: Host, *paths: str) -> None:
    """Anybody may go through these folders (0711) to what they may reach by its whole path, and list none of them."""
    await shell(host, 'chmod 711 -- "$@"', *paths)


async def remove(host: Host, path: str) -> None:
    """Remove a file; gone already is fine."""
    await shell(host, 'rm -f -- "$1"', path)


async def remove_if_empty(host: Host, path: str) -> None:
    """Remove a folder unless there is something in it; gone already is fine."""
    await shell(host, 'if [ -d "$1" ]; then rmdir --ignore-fail-on-non-empty -- "$1"; fi', path)


async def remove_tree(host: Host, path: str) -> None:
    """Remove a folder with what is in it; gone already is fine."""
    await shell(host, 'rm -rf -- "$1"', path)


async def rename(host: Host, old: str, new: str) -> None:
    """Rename a file; already renamed is fine, a new name that is taken is not."""
    await shell(host, _RENAME, old, new)


async def link(host: Host, old: str, new: str) -> None:
    """Give a file a second name (a hard link); that it has it already is fine, a name that is taken is not."""
    await shell(host, _LINK, old, new)


async def existing(host: Host, *paths: str) -> frozenset[str]:
    """Which of `paths` exist."""
    done = await shell(host, 'for p; do if [ -e "$p" ]; then printf "%s\\0" "$p"; fi; done', *paths)
    return frozenset(done.text.split("\0")[:-1])


async def listing(host: Host, folder: str) -> tuple[str, ...]:
    """The names in `folder`, sorted; a missing folder is empty."""
    done = await shell(
        host,
        'if [ -d "$1" ]; then cd -- "$1" && for f in *; do if [ -e "$f" ]; then printf "%s\\0" "$f"; fi; done; fi',
        folder,
    )
    return tuple(sorted(done.text.split("\0")[:-1]))


@dataclass(frozen=True)
class FileSystem:
    """Where it is mounted, and its free bytes."""

    mount: str
    free: int


async def file_system(host: Host, folder: str) -> FileSystem:
    """The one that `folder` is on or will be on."""
    script = (
        'p=$1; while [ ! -e "$p" ]; do p=$(dirname -- "$p"); done; df -B1 --output=avail,target -- "$p" | tail -n 1'
    )
    free, mount = (await shell(host, script, folder)).text.strip().split(maxsplit=1)
    return FileSystem(mount, int(free))


async def free_bytes(host: Host, folder: str) -> int:
    """Free bytes on the file system that `folder` is on or will be on."""
    return (await file_system(host, folder)).free
