"""`volume_migrate`: moves a volume to another pool, or gives it another type."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from trimtab.platform.contracts import Tools, Volume
from trimtab.platform.errors import ActionFailed, ActionSkipped, CloudConflict
from trimtab.platform.schema import UUID
from trimtab.platform.watch import REFUSALS, SKEW_S, patiently, until_done

S_PER_GB = 100.0  # patience: a volume that is copied slower than this (10 MB/s) is not waited for
USABLE = ("available", "in-use")
ATTACHED_TO = ("ACTIVE", "PAUSED")


class Parameters(BaseModel, extra="forbid"):
    """Input parameters on the wire; `swap` is another word for `migrate`."""

    resource_id: str = Field(pattern=UUID)
    migration_type: Literal["migrate", "swap", "retype"]
    destination_node: str | None = None
    destination_type: str | None = None
    resource_name: str | None = None


class VolumeMigrate:
    """Handler of the action type `volume_migrate`.

    It looks first: a volume that is where it should be, or of the type it should be, is done; a move under way is
    waited for; one that failed since `asked_at` is a failure. Only then does it ask the cloud.
    """

    action_type: ClassVar[str] = "volume_migrate"
    description: ClassVar[str] = "Moving a volume to destination_node or destination_type"
    schema: ClassVar[type[BaseModel]] = Parameters

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    async def pre_condition(self, wanted: Parameters) -> None:
        """Skip what is gone or done; fail where there is no such pool or type."""
        volume = await self._volume(wanted.resource_id)
        if volume is None:
            raise ActionSkipped(f"Volume {wanted.resource_id} not found")
        cloud = self.tools.cloud
        if wanted.destination_type and not any(
            kind.name == wanted.destination_type for kind in await patiently(self.tools, cloud.volume_types)
        ):
            raise ActionFailed(f"Volume type {wanted.destination_type} not found")
        if wanted.destination_node and not any(
            pool.name == wanted.destination_node for pool in await patiently(self.tools, cloud.pools)
        ):
            raise ActionFailed(f"Pool {wanted.destination_node} not found")
        if _target(wanted) == (volume.type if _retypes(wanted) else volume.pool):
            kind = "of type" if _retypes(wanted) else "on node"
            raise ActionSkipped(f"Volume is already {kind} {_target(wanted)}")

    async def execute(self, wanted: Parameters, *, asked_at: float | None) -> None:
        """Ask for the move or the type, unless it is under way or done, and wait."""
        before = await self._volume(wanted.resource_id)
        if before is not None and not _done(wanted, before):
            self.tools.memory[_key(wanted)] = before
        await self._work(wanted, None if asked_at is None else asked_at - SKEW_S)

    async def post_condition(self, wanted: Parameters) -> None:
        """The volume is where, or what, it should be, and usable."""
        volume = await self._volume(wanted.resource_id)
        if volume is None:
            raise ActionFailed(f"Volume {wanted.resource_id} is gone after its move")
        if not _done(wanted, volume):
            raise ActionFailed(
                f"Volume {volume.id} is on {volume.pool}, of type {volume.type}, {volume.status}; "
                f"it should be {'of type' if _retypes(wanted) else 'on'} {_target(wanted)}"
            )

    async def revert(self, wanted: Parameters) -> None:
        """Bring the volume back to the pool or type it had; only the process that moved it knows which that was.

        A change of type that also moved the volume moves it back only if the old type needs another pool.
        """
        left: Volume | None = self.tools.memory.get(_key(wanted))
        if left is None or not (left.type if _retypes(wanted) else left.pool):
            raise ActionFailed(f"Where volume {wanted.resource_id} was before is not known any more")
        back = wanted.model_copy(
            update={"destination_type": left.type} if _retypes(wanted) else {"destination_node": left.pool}
        )
        await self._work(back, None)

    async def abort(self, wanted: Parameters) -> bool:  # noqa: ARG002 - the seam's shape
        """Cinder cannot stop a move half way."""
        return False

    async def _volume(self, volume_id: str) -> Volume | None:
        return (await patiently(self.tools, lambda: self.tools.cloud.volumes([volume_id]))).get(volume_id)

    async def _work(self, wanted: Parameters, since: float | None) -> None:
        volume_id, refused, accepted = wanted.resource_id, 0, False

        async def advance() -> bool:
            nonlocal refused, accepted
            volume = (await self.tools.cloud.volumes([volume_id])).get(volume_id)
            if volume is None:
                raise ActionFailed(f"Volume {volume_id} vanished on the way")
            if volume.migration_status == "migrating" or volume.status == "retyping":
                refused = 0
                return False
            if _done(wanted, volume):
                return True
            if accepted or (volume.migration_status == "error" and since is not None and volume.updated_at >= since):
                raise ActionFailed(
                    f"Volume {volume_id} could not be {'retyped' if _retypes(wanted) else 'moved'} to "
                    f"{_target(wanted)}: it is on {volume.pool}, of type {volume.type}, {volume.status}, "
                    f"migration status {volume.migration_status or 'none'}"
                )
            await self._must_be_movable(wanted, volume)
            try:
                if _retypes(wanted):
                    await self.tools.cloud.retype_volume(volume_id, _target(wanted))
                else:
                    await self.tools.cloud.migrate_volume(volume_id, _target(wanted))
                accepted = True
            except CloudConflict:
                refused += 1
                if refused >= REFUSALS:
                    raise
            return False

        volume = await self._volume(volume_id)
        longest = self.tools.deadline_s + S_PER_GB * (0.0 if volume is None else volume.size_gb)
        patient = replace(self.tools, deadline_s=longest)
        kind = "of type" if _retypes(wanted) else "on"
        await until_done(patient, advance, f"Volume {volume_id} is not {kind} {_target(wanted)}")

    async def _must_be_movable(self, wanted: Parameters, volume: Volume) -> None:
        """What Cinder finds out late or not at all."""
        if _retypes(wanted):
            return
        if volume.attached_to:
            if volume.status != "in-use":
                raise ActionFailed(f"Volume {volume.id} is attached and {volume.status}; it must be in-use to be moved")
            first = volume.attached_to[0]
            server = (await self.tools.cloud.servers([first])).get(first)
            if server is None or server.status not in ATTACHED_TO:
                now = "gone" if server is None else server.status
                raise ActionFailed(f"Volume {volume.id} is attached to instance {first}, which is {now}")
        if not volume.type:
            return
        types = {kind.name: kind for kind in await self.tools.cloud.volume_types()}
        pools = {pool.name: pool for pool in await self.tools.cloud.pools()}
        kind, pool = types.get(volume.type), pools.get(_target(wanted))
        for spec, value in ({} if kind is None or pool is None else kind.extra_specs).items():
            offers = pool.reports.get(spec) if pool is not None else None
            if offers is not None and offers != value:
                raise ActionFailed(
                    f"Volume type {volume.type} wants {spec} {value}; pool {_target(wanted)} has {offers}"
                )


def _key(wanted: Parameters) -> str:
    return f"volume {wanted.resource_id} before {wanted.migration_type}"


def _retypes(wanted: Parameters) -> bool:
    return wanted.migration_type == "retype"


def _target(wanted: Parameters) -> str:
    target = wanted.destination_type if _retypes(wanted) else wanted.destination_node
    if not target:
        missing = "destination_type" if _retypes(wanted) else "destination_node"
        raise ActionFailed(f"{missing} is missing: a {wanted.migration_type} needs one")
    return target


def _done(wanted: Parameters, volume: Volume) -> bool:
    there = volume.type if _retypes(wanted) else volume.pool
    return there == _target(wanted) and volume.status in USABLE
