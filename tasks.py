#!/usr/bin/env python3
"""The one place where developers and CI run things; `python3 tasks.py` lists them.

Only the standard library: everything else is what `setup` installs. Debian packages come from apt, Python packages
go into .venv, the guest of tests and demo into .cache. What is up to date is neither installed nor built again.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
STAMP = ".venv/tasks.sha256"

PACKAGES = (
    # what the product runs on a host, and its lab on this machine
    *("qemu-system-x86", "qemu-system-common", "qemu-utils", "openssh-client", "openssh-server", "iproute2"),
    # the guest image; its kernel is unpacked into .cache and never installed (images/build.py)
    *("busybox-static", "gcc", "libc6-dev"),
    # other people's NBD servers and clients, which the tests hold against ours
    *("gnutls-bin", "libnbd-bin", "nbdkit"),
    # libvirt, without what makes it a service of this machine: the lab's hosts run their own
    *("libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients"),
    # what pip makes libvirt-python of
    *("libvirt-dev", "pkg-config", "python3-dev"),
    # a disk of the tests that fails when it is told to
    "libfuse3-3",
)
# what the tests look at pages with
BROWSER_PACKAGES = ("chromium-headless-shell",)
# the shells, besides bash, at whose prompts they complete words
SHELL_PACKAGES = ("zsh", "fish")
# what reads in the benchmarks
BENCH_PACKAGES = ("fio",)
KERNEL = "linux-image-cloud-amd64"

# A lab of its own, so that the demo never touches the user's.
DEMO_LAB = {"QEMU_ESD_LAB": "/run/qemu-esd-demo", "QEMU_ESD_LAB_DATA": "/var/lib/qemu-esd-demo"}
USERS_LAB = ("/run/qemu-esd-lab", "/var/lib/qemu-esd-lab")
TOOLS_CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache")


class TaskError(Exception):
    """A task cannot go on. `hint`: what to do about it."""

    def __init__(self, what: str, hint: str, status: int = 1) -> None:
        super().__init__(what)
        self.hint = hint
        self.status = status


# ---- the tasks


def setup() -> None:
    """Install what is missing: Debian packages, and .venv with qemu-esd and the developers' tools."""
    install_packages(PACKAGES)
    make_venv(ROOT)
    compile_sources()


def demo() -> None:
    """Move a running guest with two disks between two hosts of a lab, and take everything down again."""
    setup()
    images()
    become(*as_root(*python("-m", "tests.demo"), **DEMO_LAB))


def test(*arguments: str) -> None:
    """Check, then run all tests for real (arguments go to pytest: --qemu=new, -k ...); nothing may be left of them."""
    check()
    images()
    install_packages((*BROWSER_PACKAGES, *SHELL_PACKAGES))
    install_site_builder()
    # Here, so that what is in .cache is ours and not root's; where it cannot be had, the tests say what that means.
    call(sys.executable, f"{ROOT}/images/newer_qemu.py")
    say(f"pytest {shlex.join(arguments)}".rstrip())
    become(*as_root(*python("-m", "tests.whole", *arguments)))


def check() -> None:
    """Formatting, lint, types and the floors of the architecture."""
    setup()
    checks = {
        "ruff format --check": python("-m", "ruff", "format", "--check", "."),
        "ruff check": python("-m", "ruff", "check", "."),
        "mypy": python("-m", "mypy"),
        "lint-imports": (f"{ROOT}/.venv/bin/lint-imports", "--no-logo"),
    }
    failed = []
    for name, argv in checks.items():
        say(name)
        if call(*argv) != 0:
            failed.append(name)
    if failed:
        raise TaskError(f"not as it should be: {', '.join(failed)}", "python3 tasks.py format, and mend the rest")


def format() -> None:
    """Format the sources, and mend what ruff can mend."""
    setup()
    call(*python("-m", "ruff", "check", "--fix", "."))
    run(*python("-m", "ruff", "format", "."), hint="mend what ruff names")


def images() -> None:
    """Build the small guest of tests and demo in .cache/guest."""
    install_packages(PACKAGES)
    if not (ROOT / ".cache/guest/inputs.sha256").exists() and not apt_knows(KERNEL):
        run(*as_root("apt-get", "update"), hint="mend what apt-get names")
    run(sys.executable, "-m", "images.build", hint="mend what it names, then: python3 tasks.py images")


def lab(*arguments: str) -> None:
    """qemu-esd lab: two (or N) hosts on this machine, to play with (arguments: up, down, status, link ...)."""
    setup()
    become(*as_root(f"{ROOT}/.venv/bin/qemu-esd", "lab", *arguments))


def bench(*arguments: str) -> None:
    """Measure (arguments: the name of a benchmark)."""
    setup()
    install_packages(BENCH_PACKAGES)
    images()
    become(*as_root(*python("-m", "tests.bench", *arguments)))


def faults(*arguments: str) -> None:
    """Try every fault in every phase, and print a table of what came of each (an hour)."""
    setup()
    images()
    become(*as_root(*python("-m", "tests.faults", *arguments)))


def man() -> None:
    """Write the manual pages into build/man, from what --help says (man -l build/man/qemu-esd.1 shows one)."""
    setup()
    run(*python("-m", "qemu_esd.cli.man", f"{ROOT}/build/man"), hint="mend what it names")
    say("the pages are in build/man; for all users: install -D -m 644 -t /usr/local/share/man/man1 build/man/*.1")


def docs() -> None:
    """Build the site of the documentation into build/site, without a warning; docs/reference.md is written anew."""
    setup()
    install_site_builder()
    run(*python("-m", "qemu_esd.cli.reference", f"{ROOT}/docs/reference.md"), hint="mend what it names")
    # mkdocs-material would say what it thinks of another program.
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    run(*python("-m", "mkdocs", "build", "--strict"), hint="mend the page that it names")
    say("open build/site/index.html; to search in it: python3 -m http.server --directory build/site")


def clean() -> None:
    """Remove .venv, .cache, the tools' caches, and what a demo or a dead lab left on this machine."""
    remove_labs()
    for name in (".venv", ".cache", "build", "qemu_esd.egg-info", *TOOLS_CACHES):
        if (ROOT / name).exists():
            say(f"removing {name}")
            shutil.rmtree(ROOT / name)


TASKS: tuple[Callable[..., None], ...] = (
    setup,
    demo,
    test,
    check,
    format,
    images,
    lab,
    bench,
    faults,
    man,
    docs,
    clean,
)


# ---- Debian packages


def install_packages(packages: tuple[str, ...]) -> None:
    """Install those of `packages` that are missing, and python3-venv if it takes that to make .venv."""
    missing = missing_packages(packages)
    if importlib.util.find_spec("ensurepip") is None and not venv_is_current(ROOT):
        missing += ("python3-venv",)
    if not missing:
        return
    say(f"installing Debian packages: {' '.join(missing)}")
    apt = as_root("apt-get", "--quiet", "--yes", DEBIAN_FRONTEND="noninteractive")
    install = (*apt, "install", "--no-install-recommends", *missing)
    with sshd_kept_off(missing):
        # Lists that are there may be too old to download by, so a failure is worth an update.
        if not apt_knows(*missing) or call(*install) != 0:
            hint = "look whether this machine reaches its Debian mirror, then the same again"
            run(*apt, "update", hint=hint)
            run(*install, hint=hint)


def missing_packages(packages: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `packages` that are not installed."""
    query = ("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages)
    if shutil.which(query[0]) is None:
        raise TaskError("this is no Debian", f"install what these packages hold: {' '.join(packages)}")
    known = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return tuple(name for name in packages if f"{name} installed" not in known)


def apt_knows(*packages: str) -> bool:
    """Whether apt's lists name all of `packages`; a fresh machine may have no lists at all."""
    done = subprocess.run(("apt-cache", "show", *packages), capture_output=True, text=True, check=False)
    return {f"Package: {name}" for name in packages} <= set(done.stdout.splitlines())


@contextmanager
def sshd_kept_off(missing: tuple[str, ...]) -> Iterator[None]:
    """Debian starts an sshd as it installs one. We want the program only: no port of the machine opens for us."""
    if "openssh-server" not in missing or not Path("/run/systemd/system").is_dir():
        yield
        return
    units = ("ssh.service", "ssh.socket")
    run(*as_root("systemctl", "mask", *units), hint="see: systemctl status")
    try:
        yield
    except BaseException:
        call(*as_root("systemctl", "unmask", *units))
        raise
    say(f"this machine's own sshd stays off; to use it: systemctl unmask {' '.join(units)}; systemctl enable --now ssh")


# ---- .venv


def make_venv(root: Path) -> None:
    """See to it that .venv has this checkout and what its pyproject.toml asks for."""
    venv, stamp = root / ".venv", root / STAMP
    if venv_is_current(root):
        return
    # The stamp goes first and comes back last: a kill between the two means "not up to date".
    stamp.unlink(missing_ok=True)
    if not venv_works(venv):
        say("making .venv")
        run(sys.executable, "-m", "venv", "--clear", str(venv), hint="as root: apt-get install python3-venv")
    say("installing qemu-esd and its Python packages into .venv (a minute, the first time)")
    pip_install(venv, f"{root}[dev]")
    stamp.write_text(fingerprint(root))


def install_site_builder() -> None:
    """What builds the site, into .venv; nothing else needs it."""
    if call(*python("-c", "import importlib.util as i, sys; sys.exit(i.find_spec('material') is None)")) != 0:
        say("installing mkdocs-material into .venv")
        pip_install(ROOT / ".venv", f"{ROOT}[docs]")


def pip_install(venv: Path, editable: str) -> None:
    pip = (f"{venv}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
    run(*pip, "--editable", editable, hint="mend what pip names (it needs the network), then the same again")


def venv_is_current(root: Path) -> bool:
    stamp = root / STAMP
    return stamp.exists() and stamp.read_text() == fingerprint(root)


def fingerprint(root: Path) -> str:
    """A hash of all that .venv is made from: another Python, place or pyproject.toml makes it stale."""
    python, origin = root / ".venv/bin/python", root / ".venv/pyvenv.cfg"
    # A Python that was removed leaves a dangling link, and one in root's home is nobody else's.
    parts = (
        str(root).encode(),
        (root / "pyproject.toml").read_bytes(),
        origin.read_bytes() if os.access(python, os.X_OK) else b"",
    )
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def venv_works(venv: Path) -> bool:
    """Whether .venv is one, was made at this place (its scripts hold its path), and is new enough."""
    is_old = f"import pip, sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    try:
        done = subprocess.run((f"{venv}/bin/pip", "--version"), capture_output=True, text=True, check=True)
        return f" from {venv}/" in done.stdout and call(f"{venv}/bin/python", "-c", is_old) == 0
    except (OSError, subprocess.CalledProcessError):
        return False


def compile_sources() -> None:
    """Once, and not by each of the thousands of commands of the tests: as root they write nothing into it."""
    run(*python("-m", "compileall", "-q", "qemu_esd", "tests", "images"), hint="mend what it names")


def python(*arguments: str) -> tuple[str, ...]:
    return (f"{ROOT}/.venv/bin/python", *arguments)


# ---- labs


def remove_labs() -> None:
    """The demo's lab whatever its state; the user's only if nothing of it runs."""
    program, *left = f"{ROOT}/.venv/bin/qemu-esd", *filter(os.path.exists, (*DEMO_LAB.values(), *USERS_LAB))
    if not left:
        return
    if not Path(program).exists():
        raise TaskError(f"a lab is left in {left[0]}, and no .venv to remove it with", "python3 tasks.py setup")
    run(*as_root(program, "lab", "down", **DEMO_LAB), hint="mend what it names")
    status = subprocess.run(as_root(program, "lab", "status", "--json"), stdout=subprocess.PIPE, check=True)
    if json.loads(status.stdout)["state"] == "stale":
        run(*as_root(program, "lab", "down"), hint="mend what it names")


# ---- running programs


def as_root(*argv: str, **environment: str) -> tuple[str, ...]:
    """`argv` so that it runs as root: through sudo if we are not (and nothing of root's stays in the checkout)."""
    words = [f"{name}={value}" for name, value in environment.items()]
    if os.geteuid() == 0:
        return ("env", *words, *argv)
    if shutil.which("sudo") is None:
        raise TaskError(
            f"this takes root, and there is no sudo: {shlex.join(argv)}", f"as root: python3 {shlex.join(sys.argv)}"
        )
    ours = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("QEMU_ESD_") or name == "CI"]
    return ("sudo", "env", "PYTHONDONTWRITEBYTECODE=1", *ours, *words, *argv)


def run(*argv: str, hint: str) -> None:
    status = call(*argv)
    if status != 0:
        raise TaskError(f"ended with status {status}: {shlex.join(argv)}", hint)


def call(*argv: str) -> int:
    """Run a program in the checkout with our terminal; its exit status."""
    interrupted = False
    with subprocess.Popen(argv, cwd=ROOT) as child:
        while child.returncode is None:
            try:
                child.wait()
            except KeyboardInterrupt:
                # It got the same signal and ends in its own time: apt must not be killed at work.
                interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return child.returncode


def become(*argv: str) -> None:
    """Go on as another program: signals reach it, and its exit status is ours."""
    os.chdir(ROOT)
    os.execvp(argv[0], argv)


def say(text: str) -> None:
    print(f"tasks: {text}", flush=True)


# ---- the command line


def main(words: list[str]) -> None:
    if sys.version_info < OLDEST_PYTHON:
        raise TaskError(f"Python {sys.version.split()[0]} is too old: 3.11", "Debian 12 has it: /usr/bin/python3")
    # Root's PATH after a plain `su` lacks what apt and the lab call.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if not words or words[0] in ("-h", "--help", "help"):
        print("python3 tasks.py TASK", *(f"  {task.__name__:7} {task.__doc__}" for task in TASKS), sep="\n")
    else:
        chosen(words[0], words[1:])(*words[1:])


def chosen(name: str, arguments: list[str]) -> Callable[..., None]:
    tasks = {task.__name__: task for task in TASKS}
    if name not in tasks:
        nearest = difflib.get_close_matches(name, tasks, 1)
        raise TaskError(f"there is no task {name!r}", " ".join(["python3 tasks.py", *nearest]), status=2)
    if arguments and not inspect.signature(tasks[name]).parameters:
        raise TaskError(f"{name} takes no arguments: {shlex.join(arguments)}", f"python3 tasks.py {name}", status=2)
    return tasks[name]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except TaskError as error:
        print(f"error: {error}\n  try: {error.hint}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print(f"stopped; what is done already is not done again: python3 {shlex.join(sys.argv)}", file=sys.stderr)
        sys.exit(130)
