"""A what-if scenario as data: its base, its axes and its assumptions, read from YAML, JSON or a dictionary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from trimtab.platform.errors import InvalidInput
from trimtab.platform.plugins import load
from trimtab.platform.proposal import Limits

NAME = r"^[^\x00-\x1f/]{1,80}$"
CURVES = ("constant", "linear", "square", "cubic", "spec-ml110-g4", "spec-ml110-g5")

MOST_SEEDS = 1_000_000
MOST_ADDED = 20_000  # hosts that one point of the topology axis may add
TOO_MANY_ADDED = f"too many hosts are added: at most {MOST_ADDED:,} together"
LARGEST_SEED = 2**63 - 1  # results keep seeds as 64-bit integers

# Text and true/false are no numbers, so that what is computed is what the file says.
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Truth = Annotated[bool, Strict()]
Name = Annotated[str, Field(pattern=NAME)]
Seed = Annotated[Whole, Field(ge=0, le=LARGEST_SEED)]
Horizon = Annotated[Number, Field(ge=1, le=24 * 90)]


class InvalidScenario(InvalidInput):
    """A scenario that cannot be run; `faults` are all of them, each `path: what is wrong and what to do`."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(list(faults))
        self.faults = list(faults)

    def __str__(self) -> str:
        count = len(self.faults)
        return "\n".join([f"the scenario has {count} fault{'s' * (count != 1)}:", *(f"  {f}" for f in self.faults)])


class Part(BaseModel):
    """What all parts of a scenario have in common: no unknown fields, no changes, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# -- base --------------------------------------------------------------------------------------


class SimulatedBase(Part):
    """A made-up estate (`estate.build_estate`); `start_day` counts days since 1970-01-01."""

    kind: Literal["simulated"] = "simulated"
    hosts: Whole = Field(100, ge=2, le=20_000)
    instances: Whole = Field(500, ge=1, le=400_000)
    zones: Whole = Field(2, ge=1, le=26)
    seed: Seed = 1
    start_day: Whole = Field(20_000, ge=10)


class SnapshotBase(Part):
    """A folder with nodes.parquet and instances.parquet, as `trimtab snapshot export` writes it."""

    kind: Literal["snapshot"]
    folder: Path
    start_day: Whole = Field(20_000, ge=10)

    @field_validator("folder")
    @classmethod
    def _is_there(cls, given: Path, info: ValidationInfo) -> Path:
        return existing(given, info, "a folder with nodes.parquet and instances.parquet", folder=True)


class CloudBase(Part):
    """The running Trimtab's own model of the cloud, with its recorded load."""

    kind: Literal["cloud"]


def _with_kind(given: Any) -> Any:
    return {"kind": "simulated", **given} if isinstance(given, dict) else given


Base = Annotated[
    Annotated[SimulatedBase | SnapshotBase | CloudBase, Field(discriminator="kind")], BeforeValidator(_with_kind)
]


# -- topology ----------------------------------------------------------------------------------


class Hosts(Part):
    """Some hosts: those that match all that is given. `names` are names or globs."""

    names: tuple[str, ...] = ()
    zone: str | None = None
    aggregate: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"names": [given]}
        return {"names": given} if isinstance(given, list) else given

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.names and self.zone is None and self.aggregate is None:
            raise ValueError("says nothing: give a name, a glob, a list of them, zone or aggregate")
        return self


class AddHosts(Part):
    """New hosts, built like one that is there."""

    action: Literal["add"]
    count: Whole = Field(ge=1, le=10_000)
    like: str | None = Field(None, description="Name of a host; left out: the commonest kind")
    zone: str | None = Field(None, description="Left out: the zone of the host they are like")
    at_h: Number = Field(0.0, ge=0)


class RemoveHosts(Part):
    """Hosts that go away for good; their instances are started elsewhere by the scheduler."""

    action: Literal["remove"]
    hosts: Hosts
    at_h: Number = Field(0.0, ge=0)


class FailHosts(Part):
    """Hosts that break down at a time, and perhaps come back."""

    action: Literal["fail"]
    hosts: Hosts
    at_h: Number = Field(ge=0)
    recover_after_h: Number | None = Field(None, gt=0)
    evacuate: Truth = True
    evacuate_after_min: Number = Field(5.0, ge=0)


Change = Annotated[AddHosts | RemoveHosts | FailHosts, Field(discriminator="action")]


class Topology(Part):
    """One point of the topology axis."""

    name: Name
    changes: tuple[Change, ...] = ()

    @field_validator("changes")
    @classmethod
    def _not_too_many(cls, given: tuple[Change, ...]) -> tuple[Change, ...]:
        added = sum(change.count for change in given if isinstance(change, AddHosts))
        if added > MOST_ADDED:
            raise ValueError(TOO_MANY_ADDED)
        return given


# -- load --------------------------------------------------------------------------------------


class LoadPoint(Part):
    """One point of the load axis. `seed` is the stream's own, mixed with the cell's seed."""

    name: Name
    source: Literal["generated", "trace", "history"] = "generated"
    trace: Path | None = None
    seed: Seed = 0
    variation: Number = Field(1.0, ge=0, le=10)
    scale: Number = Field(1.0, gt=0, le=100)
    growth_pct_per_day: Number = Field(0.0, gt=-100, le=1000)

    @field_validator("trace")
    @classmethod
    def _is_there(cls, given: Path | None, info: ValidationInfo) -> Path | None:
        return None if given is None else existing(given, info, "a file with a load trace")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.source == "trace") != (self.trace is not None):
            raise ValueError("source: trace and a file in trace go together")
        return self


# -- policy ------------------------------------------------------------------------------------


class LimitsPoint(Part):
    """Migrations in flight."""

    migrations_per_host: Whole = Field(1, ge=1)
    migrations_total: Whole = Field(20, ge=1)

    def of(self) -> Limits:
        """As planners take them."""
        return Limits(self.migrations_per_host, self.migrations_total)


class PolicyPoint(Part):
    """One point of the policy axis: who looks at the cloud and how often; without a strategy nobody does."""

    name: Name
    strategy: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    interval_min: Number = Field(60.0, ge=1)
    first_min: Number = Field(0.0, ge=0)
    limits: LimitsPoint = LimitsPoint()

    @field_validator("strategy")
    @classmethod
    def _is_installed(cls, given: str | None) -> str | None:
        known = load().strategies
        if given is not None and given not in known:
            raise ValueError(f"there is no strategy {given!r}: use one of {', '.join(known)}, or null for nobody")
        return given

    @field_validator("parameters")
    @classmethod
    def _are_known(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "strategy" not in info.data:
            return given  # the strategy itself is the fault
        name = info.data["strategy"]
        if name is None:
            if given:
                raise ValueError("parameters need a strategy")
            return given
        model = load().strategies[name].parameters
        try:
            model.model_validate(given)
        except ValueError as error:
            faults = [(problem["loc"], _known(problem, model)) for problem in _problems(error)]
            raise PydanticCustomError("parameters", "wrong parameters", {"faults": faults}) from error
        return given


def _problems(error: ValueError) -> list[dict[str, Any]]:
    return [dict(problem) for problem in error.errors(include_url=False)]  # type: ignore[attr-defined]


def _known(problem: dict[str, Any], model: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        return f"unknown parameter: use one of {', '.join(model.model_fields) or 'none'}"
    return plain(problem)


# Kinds of pydantic's problems in the words of the file; the rest says what it says.
PLAIN = {
    "extra_forbidden": "unknown field: remove it or correct its name",
    "missing": "is missing: give it",
    "string_type": "must be text: put it in quotes",
    "string_pattern_mismatch": "must be 1 to 80 characters without / or line breaks",
    "int_type": "must be a whole number, without quotes",
    "float_type": "must be a number such as 1000.0 or 1.0e+3, without quotes",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list: write [..., ...] or a line with - for each",
    "list_type": "must be a list: write [..., ...] or a line with - for each",
    "dict_type": "must be a mapping: write name: value",
    "model_type": "must be a mapping: write name: value",
    "model_attributes_type": "must be a mapping: write name: value",
    "path_type": "must be a path, as text",
    "invalid_key": "names must be text: put it in quotes",
}


def plain(problem: Mapping[str, Any]) -> str:
    """What is wrong and what to do, of one problem as pydantic tells it."""
    kind, more = problem["type"], problem.get("ctx", {})
    if kind == "union_tag_not_found":
        return f"{more['discriminator']} is missing: say which is meant"
    if kind == "union_tag_invalid":
        return f"{more['discriminator']} is {more['tag']!r}: use one of {more['expected_tags']}"
    message = PLAIN.get(kind) or str(problem["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should be", "must be")
    if kind not in PLAIN_ALONE and isinstance(problem.get("input"), str | int | float) and not message.endswith(")"):
        return f"{message} (got {_short(problem['input'])})"
    return message


PLAIN_ALONE = frozenset({"extra_forbidden", "missing"})


def _short(given: Any) -> str:
    text = repr(given) if not isinstance(given, int) or abs(given) < 10**40 else "a number of more than 40 digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


# -- the whole ---------------------------------------------------------------------------------


class Seeds(Part):
    """A row of seeds: `count` of them from `first` on."""

    first: Seed = 1
    count: Whole = Field(ge=1, le=MOST_SEEDS)

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.first + self.count - 1 > LARGEST_SEED:
            raise ValueError(f"the last seed would be more than {LARGEST_SEED}: begin lower")
        return self


class Axes(Part):
    """The sweep is the product of these."""

    topology: tuple[Topology, ...] = (Topology(name="as it is"),)
    load: tuple[LoadPoint, ...] = (LoadPoint(name="generated"),)
    policy: tuple[PolicyPoint, ...] = (PolicyPoint(name="nobody"),)
    seeds: tuple[Seed, ...] = (1,)

    @field_validator("topology", "load", "policy", "seeds", mode="before")
    @classmethod
    def _not_empty(cls, given: Any) -> Any:
        if isinstance(given, list | tuple) and not given:
            raise ValueError("an axis needs at least one point, or there are no cells: leave it out for its default")
        return given

    @field_validator("seeds", mode="before")
    @classmethod
    def _row(cls, given: Any) -> Any:
        if isinstance(given, dict):
            try:
                row = Seeds.model_validate(given)
            except ValueError as error:
                faults = [(problem["loc"], plain(problem)) for problem in _problems(error)]
                raise PydanticCustomError("seeds", "wrong seeds", {"faults": faults}) from error
            return tuple(range(row.first, row.first + row.count))
        return given

    @field_validator("seeds")
    @classmethod
    def _sound(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(given)) < len(given):
            raise ValueError("a seed is there twice")
        return given

    @field_validator("topology", "load", "policy")
    @classmethod
    def _named_once(cls, given: Any) -> Any:
        names = [point.name for point in given]
        twice = [((n, "name"), f"{name!r} is there twice") for n, name in enumerate(names) if name in names[:n]]
        if twice:
            raise PydanticCustomError("names", "names are there twice", {"faults": twice})
        return given


class MigrationPoint(Part):
    """What migrations are assumed to be like, for every host and instance."""

    variant: Literal["pre-copy", "post-copy"] = "pre-copy"
    nic_mb_s: Number = Field(1000.0, gt=0)
    dirty_mb_s: Number = Field(40.0, ge=0)


class CarbonPoint(Part):
    """Grid carbon intensity from the start on; begins again where it is shorter than the horizon."""

    g_per_kwh: tuple[Annotated[Number, Field(ge=0)], ...] = Field(min_length=1)
    step_min: Number = Field(60.0, gt=0)


class FailuresPoint(Part):
    """Hosts that break down at random: Weibull times of mean `mtbf_h` between, `mttr_h` to repair."""

    mtbf_h: Number = Field(gt=0)
    mttr_h: Number = Field(2.0, gt=0)
    shape: Number = Field(1.0, gt=0)
    evacuate: Truth = True
    evacuate_after_min: Number = Field(5.0, ge=0)


class Scenario(Part):
    """A whole sweep."""

    name: Name = "what-if"
    description: str = ""
    base: Base = SimulatedBase()
    axes: Axes = Axes()
    horizon_h: Horizon = 24.0
    past_h: Number = Field(24.0, ge=0, le=24 * 14)
    migration: MigrationPoint = MigrationPoint()
    power: Literal["constant", "linear", "square", "cubic", "spec-ml110-g4", "spec-ml110-g5"] = "linear"
    carbon: CarbonPoint | None = None
    failures: FailuresPoint | None = None
    series: Truth = False

    @property
    def size(self) -> int:
        """Number of cells."""
        axes = self.axes
        return len(axes.topology) * len(axes.load) * len(axes.policy) * len(axes.seeds)

    def to_json(self) -> dict[str, Any]:
        """As it is stored; `Scenario.model_validate` takes it back."""
        return self.model_dump(mode="json")


def existing(given: Path, info: ValidationInfo, what: str, *, folder: bool = False) -> Path:
    """A path that a scenario names, absolute; relative ones are relative to the scenario's own folder.

    Raises:
        ValueError: it is not there, or files must not be named here.
    """
    context = info.context or {}
    if context.get("no_files"):
        raise ValueError("files are only read by the command line: use `trimtab whatif` with this scenario")
    path = (Path(context.get("folder", ".")) / given).resolve()
    if not (path.is_dir() if folder else path.exists()):
        raise ValueError(f"{path} is missing: name {what}")
    return path


def raw_scenario(source: Path | str | dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """The mapping in a file, text or dictionary, and the folder that its paths are relative to.

    Raises:
        InvalidScenario: it cannot be read or is no mapping.
    """
    if isinstance(source, dict):
        return source, Path.cwd()
    folder = Path.cwd()
    text = source
    if isinstance(source, Path):
        folder = source.resolve().parent
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidScenario([f"{source}: cannot be read: {error}"]) from error
    raw = _parsed(str(text))
    if not isinstance(raw, dict):
        raise InvalidScenario([f"scenario: it is {type(raw).__name__}; it must be a mapping with base and axes"])
    return raw, folder


def _parsed(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML's flow style begins alike
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that is none
        raise InvalidScenario([f"scenario: no YAML: {' '.join(str(error).split())}"]) from error
