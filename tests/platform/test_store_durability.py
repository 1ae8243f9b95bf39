"""A store's process is killed with SIGKILL while it writes: what it acknowledged is there, and nothing is torn."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from trimtab.platform.records import Action, ActionPlan, Audit, CandidateRecord, EfficacyIndicator, Event
from trimtab.platform.store.state import Store

ACTIONS = 30
WRITER = f"""
import sys
from pathlib import Path
from uuid import uuid4
from trimtab.platform.records import Action, ActionPlan, Audit, CandidateRecord, EfficacyIndicator
from trimtab.platform.store.state import Store

def new():
    return str(uuid4())

def acknowledge(what, uuid):
    print(what, uuid, flush=True)

store = Store(Path(sys.argv[1]))
print("open", flush=True)
while True:
    audit = store.create(Audit(uuid=new(), name=new(), audit_type="ONESHOT", state="PENDING", goal_id=1), key=new())
    acknowledge("created", audit.uuid)
    audit = store.claim(Audit, audit.uuid, "engine", 60)
    store.transition(Audit, audit.uuid, "run", epoch=audit.epoch)
    acknowledge("run", audit.uuid)
    store.save_outcome(
        audit.uuid,
        event="succeed",
        epoch=audit.epoch,
        candidates=[CandidateRecord(uuid=new(), audit_id=0, number=0, strategy_name="s", verdict="chosen")],
        plan=ActionPlan(uuid=new(), audit_id=0, strategy_id=1, state="RECOMMENDED"),
        actions=[Action(uuid=new(), action_plan_id=0, action_type="nop", state="PENDING") for _ in range({ACTIONS})],
        indicators=[EfficacyIndicator(uuid=new(), action_plan_id=0, name="i", data=1.0)],
    )
    acknowledge("succeeded", audit.uuid)
"""
STEPS = {"created": "PENDING", "run": "ONGOING", "succeeded": "SUCCEEDED"}
ORDER = list(STEPS.values())


def write_until_killed(path: Path, lines: int, delay_s: float) -> list[tuple[str, str]]:
    """Let a process write, kill it some time after so many acknowledgements, and return all that came through."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "open\n"
        read = [process.stdout.readline() for _ in range(lines)]
        time.sleep(delay_s)
        process.kill()
        rest = process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    whole = ("".join(read) + rest).splitlines(keepends=True)
    return [(what, uuid) for what, uuid in (line.split() for line in whole if line.endswith("\n"))]


def check_nothing_is_torn(store: Store) -> None:
    """Every audit is entirely in one of the three situations the writer leaves it in between transactions."""
    plans = {plan.audit_id: plan for plan in store.list(ActionPlan)}
    for audit in store.list(Audit):
        happened = [event.event for event in store.events(record_uuid=audit.uuid)]
        assert happened == ["create", "run", "succeed"][: 1 + ORDER.index(audit.state)]
        plan = plans.pop(audit.id, None)
        assert (plan is not None) == (audit.state == "SUCCEEDED")
        candidates = store.count(CandidateRecord, {"audit_id": audit.id})
        assert candidates == (1 if plan else 0)
        if plan:
            assert store.count(Action, {"action_plan_id": plan.id}) == ACTIONS
            assert store.count(EfficacyIndicator, {"action_plan_id": plan.id}) == 1
    assert not plans
    for kind in (Audit, Action, ActionPlan, Event):
        ids = [row.id for row in store.list(kind)]
        assert len(set(ids)) == len(ids), "no id is given twice, restarts or not"


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path, dice = tmp_path / "store.duckdb", random.Random(4)
    acknowledged: dict[str, str] = {}
    for _ in range(5):
        for what, uuid in write_until_killed(path, dice.randrange(1, 25), dice.random() * 0.03):
            acknowledged[uuid] = STEPS[what]
        store = Store(path)
        assert acknowledged
        for uuid, state in acknowledged.items():
            assert ORDER.index(store.get(Audit, uuid).state) >= ORDER.index(state)
        check_nothing_is_torn(store)
        store.close()
