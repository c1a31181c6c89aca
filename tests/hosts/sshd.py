"""A real sshd on a port of its own of 127.0.0.1, with keys of its own, for the user that runs the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from qemu_esd.hosts.base import SshTarget
from tests.support.net import free_port

USER = getpass.getuser()


@dataclass(frozen=True)
class Server:
    """A running sshd: its port, its host key as in known_hosts, and the key of a client that it lets in."""

    port: int
    host_key: str
    client_key: Path
    folder: Path

    @property
    def known_hosts(self) -> Path:
        """A client's file that has the server's key."""
        path = self.folder / "known_hosts"
        path.write_text(self.known_as("127.0.0.1"))
        return path

    def known_as(self, address: str) -> str:
        return f"[{address}]:{self.port} {self.host_key}\n"

    def target(self) -> SshTarget:
        return SshTarget("127.0.0.1", self.port, USER, self.client_key, self.known_hosts)


def new_key(path: Path) -> str:
    """A key pair at `path`; returns the public line without its comment."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path)
    path.chmod(0o600)
    return " ".join(key.export_public_key().decode().split()[:2])


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """An sshd whose files are in `folder`."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin") or pytest.skip("there is no sshd")
    server = Server(free_port(), new_key(folder / "host"), folder / "client", folder)
    (folder / "authorized").write_text(new_key(server.client_key) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    words = {
        "ListenAddress": f"127.0.0.1:{server.port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "StrictModes": "no",
        "PidFile": "none",
        "UsePAM": "no",
        # Whatever the start-up files of the user do, they take their time.
        "SetEnv": f"HOME={folder}",
    }
    config = folder / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in words.items()))
    with subprocess.Popen([program, "-D", "-e", "-f", config], stderr=subprocess.PIPE, text=True) as sshd:
        try:
            assert sshd.stderr is not None
            assert "listening" in sshd.stderr.readline()
            yield server
        finally:
            sshd.terminate()


def client_home(folder: Path, server: Server, alias: str) -> Path:
    """A home folder in which `ssh ALIAS` means this server, whose key is not known there yet."""
    ssh = folder / ".ssh"
    ssh.mkdir(mode=0o700)
    words = {"HostName": "127.0.0.1", "Port": server.port, "User": USER, "IdentityFile": server.client_key}
    config = ssh / "config"
    config.write_text(f"Host {alias}\n" + "".join(f"  {name} {value}\n" for name, value in words.items()))
    config.chmod(0o600)
    return folder
