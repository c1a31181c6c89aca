"""Certificates for libvirt's own TLS on lab hosts, and libvirtd told where they are; taken back afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import run

from tests.integration.support.machine import Machine
from tests.support.domains import DAEMON

FOLDER = "/srv/pki"
_CONF = "/etc/libvirt/qemu.conf"
_EXTENSIONS = """subjectAltName=IP:{address},DNS:{name}
keyUsage=digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth,clientAuth
"""


@contextmanager
def with_certificates(machines: Sequence[Machine], folder: Path) -> Iterator[None]:
    """`folder` is where they are made: each host gets one of its own, for both ends, of one authority."""
    authority = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    words = ("-x509", "-subj", "/CN=lab", *authority, "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    _openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-days", "2", *words)
    conf = {machine: machine.run("cat", _CONF).stdout for machine in machines}
    try:
        for machine in machines:
            _sign(folder, machine)
            machine.run("tee", _CONF, stdin=f'{conf[machine]}migrate_tls_x509_cert_dir = "{FOLDER}"\n')
            restart(machine)
        yield
    finally:
        for machine in machines:
            machine.run("tee", _CONF, stdin=conf[machine])
            machine.run("rm", "-rf", FOLDER)
            restart(machine)


def restart(machine: Machine) -> None:
    """Its libvirtd is killed, and there again."""
    machine.run("pkill", "--signal", "KILL", "--exact", DAEMON)
    deadline = time.monotonic() + 30
    while machine.run("virsh", "--quiet", "list", check=False).returncode != 0:
        assert time.monotonic() < deadline, f"no libvirtd on {machine.name}"
        time.sleep(0.05)


def _sign(folder: Path, machine: Machine) -> None:
    (folder / "more").write_text(_EXTENSIONS.format(address=machine.address, name=machine.name))
    request = ("-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={machine.name}", "-keyout", "key.pem", "-out", "csr.pem")
    _openssl(folder, "req", *request)
    by = ("-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "more")
    _openssl(folder, "x509", "-req", "-in", "csr.pem", "-out", "cert.pem", *by)
    machine.run("mkdir", "-p", FOLDER)
    for name, file in (
        ("ca-cert.pem", "ca-cert.pem"),
        *((f"{end}-{part}.pem", f"{part}.pem") for end in ("server", "client") for part in ("cert", "key")),
    ):
        machine.run("tee", f"{FOLDER}/{name}", stdin=(folder / file).read_text())


def _openssl(folder: Path, *words: str) -> None:
    run(["openssl", *words], cwd=folder, check=True, capture_output=True)
