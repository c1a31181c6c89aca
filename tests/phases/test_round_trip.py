"""How long the way to the source is, as `ss` tells it."""

from __future__ import annotations

from qemu_esd.phases.round_trip import LONG_WAY, shortest

TOLD = """\
0      0      10.213.0.12:36864 10.213.0.11:49800
\t ts sack cubic wscale:10,10 rto:224 rtt:20.496/0.094 ato:40 mss:1448 cwnd:18 rcv_rtt:20 minrtt:20.165 snd_wnd:65536
0      0      10.213.0.12:36866 10.213.0.11:49800
\t ts sack cubic wscale:10,10 rto:224 rtt:0.3/0.1 rcv_rtt:20 minrtt:0.25
"""


def test_the_shortest_of_all() -> None:
    assert shortest(TOLD) == 0.00025


def test_a_way_that_nobody_has_measured_counts_as_long() -> None:
    assert shortest("") == shortest(" ts sack cubic rtt:0.3/0.1") == LONG_WAY
