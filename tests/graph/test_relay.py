"""The relay's words: each device as the path handler serves it, and nothing secret."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from qemu_esd.graph import relay
from qemu_esd.model.disk import Endpoint, Link, TlsTcp, UnixPath


def words(endpoint: Endpoint) -> list[str]:
    links = [(suid, Link(endpoint, f"esd-{suid}")) for suid in ("one", "two")]
    return list(relay.argv(links, "/run/m.sock", "/run/nbd.sock"))


def after(argv: list[str], flag: str) -> list[dict[str, Any]]:
    return [json.loads(value) for word, value in pairwise(argv) if word == flag]


def test_one_key_for_all_devices() -> None:
    argv = words(TlsTcp("192.0.2.1", 49800, "/state/link/0badcafe"))
    (key,) = after(argv, "--object")
    assert key["dir"] == "/state/link/0badcafe"
    clients = [node for node in after(argv, "--blockdev") if node["driver"] == "nbd"]
    assert [client["tls-creds"] for client in clients] == [key["id"], key["id"]]


def test_each_device_under_the_name_that_it_has_further_on() -> None:
    argv = words(UnixPath("/run/tunnel.sock"))
    assert after(argv, "--object") == []
    exports, nodes = after(argv, "--export"), {node["node-name"]: node for node in after(argv, "--blockdev")}
    for suid, export in zip(("one", "two"), exports, strict=True):
        served = nodes[export["node-name"]]
        assert (served["driver"], served["read-only"], export.get("writable", False)) == ("raw", True, False)
        assert nodes[served["file"]]["export"] == export["name"] == f"esd-{suid}"


def test_one_monitor_stays_free_for_whoever_only_looks() -> None:
    monitors = [value for word, value in pairwise(words(UnixPath("/run/tunnel.sock"))) if word == "--chardev"]
    assert [monitor.split(",")[2] for monitor in monitors] == ["path=/run/m.sock", "path=/run/m.sock-observe"]


def test_zeroes_are_of_the_same_size_and_take_the_place_of_the_link() -> None:
    node = relay.zeroes("one", 12345)
    assert (node["size"], node["read-zeroes"]) == (12345, True)
    before, now = (relay.served("one", below) for below in ("esd-one-nbd", node["node-name"]))
    assert {**before, "file": now["file"]} == now
