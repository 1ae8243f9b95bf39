"""The engine: takes audits when they are due, has candidates proposed, tried and ranked, and stores what came of it."""

from trimtab.platform.engine.afterwards import plan_candidate, plan_rollback
from trimtab.platform.engine.check import Checked, check_plan
from trimtab.platform.engine.exploration import explore, jobs_for
from trimtab.platform.engine.parts import Freeze, Frozen, Parts, Tell, silent
from trimtab.platform.engine.queue import serve_audits
from trimtab.platform.engine.story import run_audit

__all__ = [
    "Checked", "Freeze", "Frozen", "Parts", "Tell", "check_plan", "explore", "jobs_for", "plan_candidate",
    "plan_rollback", "run_audit", "serve_audits", "silent",
]  # fmt: skip
