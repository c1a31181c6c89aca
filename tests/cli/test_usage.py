"""Words that are wrong, and refusals that need no host: one clear error, its exit status, nothing on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qemu_esd import __version__, api
from qemu_esd.cli.migrate import parse_disk_policies, parse_ports, parse_transport
from qemu_esd.errors import UsageError
from qemu_esd.journal import registry
from qemu_esd.model.plan import Transport
from qemu_esd.model.policy import Handler
from tests.cli.conftest import Say

MIGRATE = ("migrate", "vm1", "hostB", "--policy", "redirect")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("migrate", "vm1", "hostB", "--policy", "on-demnd"), "did you mean on-demand?"),
        (("migrate", "vm1", "hostB"), "--policy miss"),
        ((*MIGRATE, "--disk-policy", "vda=backgroud"), "did you mean background?"),
        ((*MIGRATE, "--disk-policy", "vda"), "DISK=POLICY"),
        ((*MIGRATE, "--disk-policy", "vda=miss", "--disk-policy", "vda=redirect"), "vda twice"),
        ((*MIGRATE, "--write-policy", "through"), "not there yet"),
        ((*MIGRATE, "--write-policy", "sideways"), "no write policy"),
        ((*MIGRATE, "--transport", "carrier-pigeon"), "no transport"),
        ((*MIGRATE, "--read-errors", "ignore"), "neither stop nor report"),
        ((*MIGRATE, "--transport", "ssh", "--plaintext"), "contradict"),
        ((*MIGRATE, "--transport", "tls", "--plaintext"), "contradict"),
        ((*MIGRATE, "--bandwidth", "fast"), "not a size"),
        ((*MIGRATE, "--bandwidth", "automatic"), "not a size"),
        ((*MIGRATE, "--bandwidth", "0"), "more than zero"),
        (("lab", "link", "hostA", "hostB", "--rate", "99999T"), "more than tc can"),
        (("lab", "link", "hostA", "hostB", "--delay", "99999999s"), "longer than tc can"),
        ((*MIGRATE, "--downtime", "0"), "one millisecond"),
        ((*MIGRATE, "--downtime", "2000001"), "at most 2000000"),
        (("share", "vm1", "--undo", "--with", "hostB"), "neither --with nor --owner"),
        (("share", "vm1", "--with", "hostB", "--owner", "4294967295:0"), "user and a group"),
        (("vm", "run", "vm1", "--memory", "512"), "512 bytes of memory are too few"),
        ((*MIGRATE, "--ports", "99999"), "range of ports"),
        ((*MIGRATE, "--overlay-dir", "disks"), "whole path"),
        ((*MIGRATE, "--release"), "settle, then qemu-esd release"),
        ((*MIGRATE, "--from", "-oProxyCommand=id"), "not a host name"),
        (("migrate", "vm1", "$(id)", "--policy", "miss", "--from", "local"), "not a host name"),
        (("evacuate", "a", "b", "a"), "name other hosts"),
        (("evacuate", "a", "b", "--policy", "backgroud"), "did you mean background?"),
        (("evacuate", "a", "b", "--policy", "redirect", "--release"), "leave --policy out"),
        (("evacuate", "a", "b", "--bandwidth", "fast"), "not a size"),
        (("evacuate", "a", "b", "--overlay-dir", "disks"), "whole path"),
        (("evacuate", "$(id)", "b"), "not a host name"),
        (("policy", "vm1", "vda", "redirekt"), "did you mean redirect?"),
        (("policy", "vm1", "vda", "vdb", "miss"), "too many words"),
        (("resume", "--host", "h"), "name the guest"),
        (("rollback", "--host", "h"), "name the guest"),
        (("vm", "run"), "needs a name"),
        (("vm", "run", "../vm1"), "cannot be the name"),
        (("vm", "run", "vm1", "--disk", "/srv/disk"), "format=raw"),
        (("vm", "run", "vm1", "--host", "h", "--disk", "a.raw"), "as it is on h"),
        (("vm", "run", "vm1", "--host", "h", "--kernel", "vmlinuz"), "as it is on h"),
        (("vm", "run", "vm1", "--toml", "vm1.toml"), "only --host"),
        (("vm", "run", "--toml", "/nonexistent.toml"), "cannot read"),
        (("doctor", "$(id)"), "not a host name"),
        (("doctor", "local", "--ports", "5"), "range of ports"),
        (("metrics",), "--listen 127.0.0.1:9790"),
        (("metrics", "--listen", "127.0.0.1:1", "--textfile", "x"), "--listen 127.0.0.1:9790"),
        (("metrics", "--listen", "9790"), "127.0.0.1:9790"),
        (("metrics", "--textfile", "x", "--every", "0.1"), "seconds, at least 1"),
        (("metrics", "--textfile", "x", "--every", "nan"), "seconds, at least 1"),
        (("device", "follow", "d1", "--every", "inf"), "seconds, at least 0.2"),
        (("device", "follow", "d1", "--every", "0.1"), "seconds, at least 0.2"),
        ((*MIGRATE, "--bandwidth", "9" * 400), "more than any program can count"),
        ((*MIGRATE, "--bandwidth", "99999999999gbit"), "more than any program can count"),
        (("qmp", "vm1"), "needs a terminal"),
        (("qmp", "@hostA", "stop"), "VM@HOST"),
        (("qmp", "vm1", "stop", "--count", "1"), "--events"),
        (("qmp", "vm1", "stop", "--trace", "/nonexistent/file"), "to be made"),
        (("vm", "console", "vm1"), "qemu-esd vm log vm1"),
    ],
)
def test_wrong_words(say: Say, words: tuple[str, ...], said: str) -> None:
    told = say(*words)
    assert (told.status, told.out) == (2, "")
    assert told.err.startswith("error: ")
    assert said in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    "words", [("mgirate",), ("migrate", "vm1"), ("migrate", "a", "b", "--polcy", "miss"), ("map",)]
)
def test_unknown_and_missing_words(say: Say, words: tuple[str, ...]) -> None:
    assert say(*words).status == 2


@pytest.mark.parametrize(
    "words",
    [
        ("migrate", "no-such-vm", "hostB", "--policy", "miss"),
        ("migrate", "no-such-vm", "hostB", "--policy", "miss", "--dry-run"),
        ("settle", "no-such-vm"),
        ("settle", "no-such-vm", "nor-this-one"),
        ("release", "no-such-vm"),
        ("policy", "no-such-vm", "miss"),
        ("map", "no-such-vm"),
        ("status", "no-such-vm"),
        ("qmp", "no-such-vm", "query-status"),
        ("qmp", "no-such-vm@local", "query-status"),
        ("vm", "stop", "no-such-vm"),
        ("vm", "cont", "no-such-vm"),
        ("vm", "log", "no-such-vm"),
        ("vm", "forget", "no-such-vm"),
    ],
)
def test_an_unknown_guest(say: Say, words: tuple[str, ...]) -> None:
    told = say(*words)
    assert told.status == 3
    assert "no-such-vm" in told.out + told.err
    assert "try: " in told.out + told.err
    assert "Traceback" not in told.err


def test_an_image_that_is_not_there(say: Say, tmp_path: Path) -> None:
    told = say("vm", "run", "esd-test", "--disk", str(tmp_path / "a.raw"))
    assert told.status == 3
    assert told.err.startswith(f"error: local: there is no image {tmp_path / 'a.raw'}\n  try: ")
    assert registry.find("esd-test") is None


def test_a_dry_run_tells_its_problem_as_json(say: Say) -> None:
    told = say("migrate", "no-such-vm", "hostB", "--policy", "miss", "--dry-run", "--json")
    answer = json.loads(told.out)
    assert told.status == 3
    assert answer["plan"] is None
    assert [set(problem) for problem in answer["problems"]] == [{"host", "what", "hint"}]
    assert "no-such-vm" in answer["problems"][0]["what"]


def test_a_refused_migration_says_nothing_on_stdout(say: Say) -> None:
    assert say("migrate", "no-such-vm", "hostB", "--policy", "miss", "--json").out == ""


def test_plaintext_is_loud(say: Say) -> None:
    told = say(*MIGRATE, "--from", "local", "--plaintext")
    assert "WARNING" in told.err
    assert "unencrypted" in told.err
    assert "WARNING" not in say(*MIGRATE, "--from", "local").err


def test_version_and_help(say: Say) -> None:
    assert say("--version").out == f"qemu-esd {__version__}\n"
    told = say("--help")
    assert told.status == 0
    for command in ("migrate", "settle", "release", "policy", "status", "map", "vm", "lab"):
        assert command in told.out


def test_nothing_is_known(say: Say) -> None:
    assert json.loads(say("status", "--json").out) == {"vms": []}
    assert "vm list" in say("status").out


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("QEMU_ESD_STATE", ("status",)),
        ("QEMU_ESD_STATE", ("resume",)),
        ("QEMU_ESD_STATE", ("report", "vm1")),
        ("QEMU_ESD_STATE", (*MIGRATE, "--from", "hostA")),
        ("QEMU_ESD_STATE", ("device", "list")),
        ("QEMU_ESD_STATE", ("vm", "forget", "vm1")),
        ("QEMU_ESD_LAB", ("lab", "status")),
        ("QEMU_ESD_LAB", ("lab", "up")),
        ("QEMU_ESD_LAB", ("lab", "exec", "hostA", "--", "true")),
    ],
)
def test_a_folder_of_ours_that_is_none(
    say: Say, variable: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    told = say(*words)
    assert (told.status, told.out, told.err.count("error: ")) == (3, "", 1)
    assert str(tmp_path / "file") in told.err
    assert variable in told.err


def test_a_shut_off_guest_is_said_to_be_so(say: Say) -> None:
    registry.remember("esd-test-off", "local")
    told = say("status")
    assert (told.status, told.out.splitlines()[1].split()) == (0, ["esd-test-off", "local", "shut", "off"])
    assert json.loads(say("status", "--json").out)["vms"][0]["state"] == "shut off"


def test_a_host_that_cannot_be_reached(say: Say) -> None:
    registry.remember("vm1", "hostZ")
    told = say("status")
    assert told.status == 0
    line, problem = told.out.splitlines()[1:]
    assert line.split() == ["vm1", "hostZ", "unreachable", "look"]
    assert problem.startswith("vm1: hostZ: ")
    assert say("status", "vm1").out.startswith("vm1  hostZ  unreachable\n  hostZ: ")


def test_the_causes_of_an_error_only_when_asked_for(say: Say, tmp_path: Path) -> None:
    words = ("vm", "run", "--toml", str(tmp_path / "no.toml"))
    assert "because of" not in say(*words).err
    assert "because of FileNotFoundError" in say("-v", *words).err


def test_metrics_that_cannot_be_written(say: Say) -> None:
    told = say("metrics", "--textfile", "/nonexistent/esd.prom")
    assert told.status == 2
    assert "/nonexistent/esd.prom cannot be written" in told.err
    assert "try: " in told.err


def test_an_error_as_json(say: Say) -> None:
    told = say("--log-format", "json", "qmp", "no-such-vm", "query-status")
    line = json.loads(told.err)
    assert (told.status, line["exit_status"], line["level"], line["kind"]) == (3, 3, "error", "RefusedError")
    assert "no-such-vm" in line["event"]
    assert line["hint"]
    assert say("--log-format", "xml", "status").status == 2


def test_a_bug_is_one_line(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(vm: str | None) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(api, "look_around", broken)
    told = say("status", "vm1")
    assert told.status == 1
    assert told.err == "this is a bug of qemu-esd: ZeroDivisionError: first line (qemu-esd -v COMMAND... shows where)\n"
    assert "Traceback" in say("-v", "status", "vm1").err


def test_disk_policies() -> None:
    assert parse_disk_policies(["vda=miss", "a.b=on-demand"]) == {"vda": Handler.MISS, "a.b": Handler.ON_DEMAND}


def test_ports() -> None:
    assert list(parse_ports("5-7")) == [5, 6, 7]
    assert list(parse_ports("5-5")) == [5]
    for text in ("", "5", "7-5", "0-5", "5-65536", "a-b", "5-6-7", "-5", "²-³"):
        with pytest.raises(UsageError, match="range of ports"):
            parse_ports(text)


def test_transports() -> None:
    assert parse_transport(None, False) is Transport.TLS
    assert parse_transport("ssh", False) is Transport.SSH
    assert parse_transport(None, True) is Transport.PLAINTEXT
    with pytest.raises(UsageError, match="no transport"):
        parse_transport("plaintext", False)
