"""A port that one command has chosen is chosen by no other one."""

from __future__ import annotations

import os
import subprocess
import sys

from qemu_esd.journal import claims, store


def test_a_claim_ends_with_its_context_and_leaves_nothing() -> None:
    with claims.opened() as ours, claims.opened() as others:
        assert ours.take("a", 49800)
        assert not others.take("a", 49800)
        assert others.take("a", 49801)
        assert others.take("b", 49800)
    with claims.opened() as later:
        assert later.take("a", 49800)
    assert list((store.home() / "ports").iterdir()) == []


def test_a_command_that_is_killed_claims_nothing_any_more() -> None:
    script = "import os; from qemu_esd.journal import claims\nwith claims.opened() as c: c.take('a', 1); os._exit(9)"
    assert subprocess.run((sys.executable, "-c", script), env=dict(os.environ), check=False).returncode == 9
    assert (store.home() / "ports/a-1").exists()
    with claims.opened() as ours:
        assert ours.take("a", 1)
