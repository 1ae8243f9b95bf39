"""The outcome of an audit: which candidate is recommended and why, and everything it found as records."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from trimtab.platform import ranking
from trimtab.platform.contracts import Goal, Score
from trimtab.platform.errors import StrategyError
from trimtab.platform.proposal import Candidate, Plan, steps_to_json
from trimtab.platform.records import Action, ActionPlan, CandidateRecord, EfficacyIndicator
from trimtab.platform.snapshot import Snapshot
from trimtab.platform.states import ActionState, PlanState
from trimtab.platform.trial import ProposeJob, Tried

NOTHING = "do_nothing"
NO_PROPOSAL = "No strategy had anything to propose"
LONGEST_MESSAGE = 255


class Entry(NamedTuple):
    """A candidate on its way through one audit."""

    job: ProposeJob
    candidate: Candidate | None
    tried: Tried
    node: str = ""
    worker: str = ""
    propose_s: float = 0.0
    rehearse_s: float = 0.0
    error: str | None = None


def choose(goal: Goal, entries: Sequence[Entry], *, named: bool) -> tuple[int | None, str | None]:
    """Position of the recommended entry, and what to tell the person when none is (or why it is empty).

    Raises:
        StrategyError: every strategy failed, so nothing can be said.
    """
    sound = [p for p, e in enumerate(entries) if e.tried.plan is not None and not e.tried.reasons and e.error is None]
    proposals = [p for p in sound if entries[p].job.strategy != NOTHING]
    broken = [e for e in entries if e.error is not None]
    if not goal.ordering:
        if broken:
            raise StrategyError(f"strategy {broken[0].job.strategy} failed: {broken[0].error}")
        return (proposals[0], None) if proposals else (None, _rejections(entries) or NO_PROPOSAL)
    if not proposals:
        if broken and not any(e.tried.reasons for e in entries):
            raise StrategyError(f"strategy {broken[0].job.strategy} failed: {broken[0].error}")
        return None, _rejections(entries) or NO_PROPOSAL
    scores = {p: entries[p].tried.score or Score() for p in sound}
    if not named:
        nothing = next(p for p in sound if entries[p].job.strategy == NOTHING)
        better = [p for p in proposals if ranking.beats(goal, scores[p], scores[nothing]) is not None]
        if not better:
            fields = ", ".join(goal.ordering)
            return None, f"Doing nothing is best: none of {len(proposals)} candidates beats it ({fields})"
        proposals = better
    best = min(proposals, key=lambda p: (ranking.key(goal, scores[p]), p))
    candidate = entries[best].candidate
    return best, candidate.because if candidate is not None and not candidate.steps else None


def _rejections(entries: Sequence[Entry]) -> str | None:
    reasons = [f"{e.job.strategy}: {e.tried.reasons[0]}" for e in entries if e.tried.reasons]
    reasons += [f"{e.job.strategy}: {e.error}" for e in entries if e.error is not None]
    return f"All candidates were rejected: {'; '.join(dict.fromkeys(reasons))}" if reasons else None


def verdict(entry: Entry, chosen: bool) -> str:
    """What became of an entry, in a word: failed, rejected, chosen or ranked."""
    if entry.error is not None:
        return "failed"
    if entry.tried.reasons or entry.tried.plan is None:
        return "rejected"
    return "chosen" if chosen else "ranked"


def candidate_rows(
    snapshot: Snapshot, goal: Goal, entries: Sequence[Entry], chosen: int | None
) -> list[CandidateRecord]:
    """Every candidate as it is stored: winner, losers with their ranks, rejected ones with their reasons."""
    scored = [p for p, e in enumerate(entries) if e.tried.score is not None and not e.tried.reasons and not e.error]
    order = ranking.rank(goal, [entries[p].tried.score or Score() for p in scored])
    rank = {scored[position]: place for place, position in enumerate(order, start=1)}
    rows = []
    for number, entry in enumerate(entries):
        candidate = entry.candidate or Candidate(())
        reasons = [entry.error] if entry.error is not None else list(entry.tried.reasons)
        told = [candidate.because, *candidate.notes, *(entry.tried.plan.notes if entry.tried.plan else ())]
        rows.append(
            CandidateRecord(
                uuid=str(uuid.uuid4()),
                audit_id=0,
                number=number,
                strategy_name=entry.job.strategy,
                parameters=dict(entry.job.parameters),
                verdict=verdict(entry, number == chosen),
                rank=rank.get(number),
                reason="; ".join(reasons) or None,
                because="; ".join(dict.fromkeys(told)),
                indicators=dict(candidate.indicators),
                score=asdict(entry.tried.score) if entry.tried.score is not None else {},
                steps=steps_to_json(snapshot.model, candidate.steps),
                planner=candidate.planner,
                node=entry.node,
                worker=entry.worker,
                propose_s=entry.propose_s,
                rehearse_s=entry.rehearse_s,
            )
        )
    return rows


def plan_rows(
    goal: Goal, strategy_id: int, entries: Sequence[Entry], chosen: int | None
) -> tuple[ActionPlan, list[Action], list[EfficacyIndicator]]:
    """The plan as it is stored: RECOMMENDED with its actions, or SUCCEEDED and empty when there is nothing to do."""
    entry = entries[chosen] if chosen is not None else None
    candidate = entry.candidate if entry and entry.candidate else Candidate(())
    plan = entry.tried.plan if entry and entry.tried.plan else Plan(())
    actions = action_rows(plan)
    indicators = [
        EfficacyIndicator(
            uuid=str(uuid.uuid4()),
            action_plan_id=0,
            name=indicator.name,
            description=indicator.description,
            unit=indicator.unit,
            data=float(candidate.indicators[indicator.name]),
        )
        for indicator in goal.indicators
        if indicator.name in candidate.indicators
    ]
    row = ActionPlan(
        uuid=str(uuid.uuid4()),
        audit_id=0,
        strategy_id=strategy_id,
        state=PlanState.RECOMMENDED if actions else PlanState.SUCCEEDED,
        candidate=chosen if chosen is not None else -1,
        global_efficacy=goal.global_efficacy(candidate.indicators),
        rehearsed=asdict(entry.tried.score) if entry and entry.tried.score else {},
        notes=list(dict.fromkeys((*candidate.notes, *plan.notes))),
    )
    return row, actions, indicators


def action_rows(plan: Plan) -> list[Action]:
    """The nodes of a plan's graph as records that name each other by uuid."""
    ids = [str(uuid.uuid4()) for _ in plan.actions]
    return [
        Action(
            uuid=ids[position],
            action_plan_id=0,
            action_type=action.action_type,
            input_parameters=dict(action.parameters),
            state=ActionState.PENDING,
            parents=[ids[parent] for parent in action.parents],
            needs_room_of=[ids[parent] for parent in action.needs_room_of],
        )
        for position, action in enumerate(plan.actions)
    ]


def message_of(parts: Sequence[str]) -> str | None:
    """Several texts as one status message, cut where it is too long; None when there is nothing to say."""
    text = "; ".join(parts)
    return (text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…") or None
