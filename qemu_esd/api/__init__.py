"""For Python callers: what the commands do, without their words. docs/api.md tells of it, with examples that run.

moved = await api.migrate(Request("vm1", "hostB", Handler.ON_DEMAND), print)
"""

from qemu_esd.adhoc import Peer, open_peer
from qemu_esd.api.desk import Desk, open_desk, open_guest
from qemu_esd.api.evacuating import EvacuationRefusedError, evacuate
from qemu_esd.api.evacuation_plan import EvacuationPlan, plan_evacuation
from qemu_esd.api.looking import (
    broken_off,
    examine,
    graph_guest,
    look_around,
    look_at_guests,
    map_guest,
    propose,
    recorded,
    try_out,
)
from qemu_esd.api.moving import Agree, PlanRefusedError, adopt, migrate, migrate_detached, recover
from qemu_esd.api.settling import change_policy, command_to_go_on, follow_policy, release_guest, settle_guest
from qemu_esd.errors import EsdError, RefusedError, UnfinishedError, UsageError
from qemu_esd.model.evacuation import Evacuated, Evacuation
from qemu_esd.model.finding import Finding, Level
from qemu_esd.model.plan import Problem, Transport
from qemu_esd.model.policy import Handler
from qemu_esd.model.progress import Progress
from qemu_esd.model.record import Measured, State
from qemu_esd.model.recovery import Wish
from qemu_esd.model.request import Request
from qemu_esd.phases.context import Event, Reporter
from qemu_esd.trial import Trial
from qemu_esd.view import DiskMap

__all__ = [
    "Agree", "Desk", "DiskMap", "EsdError", "Evacuated", "Evacuation", "EvacuationPlan", "EvacuationRefusedError",
    "Event", "Finding", "Handler", "Level", "Measured", "Peer",
    "PlanRefusedError", "Problem", "Progress", "RefusedError", "Reporter", "Request", "State", "Transport", "Trial",
    "UnfinishedError", "UsageError", "Wish",
    "adopt", "broken_off", "change_policy", "command_to_go_on", "evacuate", "examine", "follow_policy", "graph_guest",
    "look_around", "look_at_guests", "map_guest", "migrate", "migrate_detached", "open_desk", "open_guest", "open_peer",
    "plan_evacuation",    "propose", "recorded", "recover", "release_guest", "settle_guest", "try_out",
]  # fmt: skip
