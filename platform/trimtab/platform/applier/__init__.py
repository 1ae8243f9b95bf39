"""The applier: runs plans, as parallel as the limits allow; killed, it goes on where it stopped.

`queue` takes plans, `story` is one plan from beginning to end, `walk` its graph and the limits, `step` one action,
`room` the second look at a destination, `ledger` what is written about it all.
"""

from trimtab.platform.applier.queue import serve_plans
from trimtab.platform.applier.room import CloudRoom, Room
from trimtab.platform.applier.story import run_plan
from trimtab.platform.applier.walk import Slots

__all__ = ["CloudRoom", "Room", "Slots", "run_plan", "serve_plans"]
