"""Where options come from: a file, the environment, the command line, in rising order; and all that is wrong."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

from oslo_config import cfg
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from trimtab.platform.errors import InvalidInput
from trimtab.platform.secrets import MASK
from trimtab.platform.settings import CONTRADICTIONS, Settings
from trimtab.serve.watcher_options import COUNTERPARTS, NOT_USED, why_unused

PREFIX = "TRIMTAB_"
FILE = "trimtab.toml"
SYSTEM = Path("/etc/trimtab")
COMMAND_LINE = "command line"
FLAGS = {"insecure_no_auth": "--insecure-no-auth"}  # said anew at every start, on the command line alone
# Variables that are none of the service's options: clients', and those of tests.
OTHERS = frozenset({"url", "config", "token", "watcher_db", "shared", "planetlab", "peers_home"})


class Option(NamedTuple):
    """One option: its path, such as `cors.max_age`, and its field."""

    path: str
    field: FieldInfo

    @property
    def is_secret(self) -> bool:
        """Whether nobody may see its value."""
        return SecretStr in _kinds(self.field)

    @property
    def is_file(self) -> bool:
        """Whether it names a file or folder."""
        return Path in _kinds(self.field)


class Value(NamedTuple):
    """What somebody gave, and where."""

    value: Any
    origin: str


class Fault(NamedTuple):
    """What is wrong with one option."""

    path: str
    text: str


class Misconfigured(InvalidInput):
    """Options that cannot be used: all that is wrong, one line each."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(fault.text for fault in faults))
        self.faults = list(faults)


@dataclass
class Configuration:
    """The options in force, who set them, and what is to be told about it."""

    settings: Settings
    origins: Mapping[str, str]  # of what is not the default
    file: Path | None
    notes: list[str] = field(default_factory=list)  # Watcher's options that do nothing here
    hints: list[str] = field(default_factory=list)  # environment variables that nobody knows


def _kinds(of: FieldInfo) -> set[Any]:
    kinds = {of.annotation, *get_args(of.annotation)}
    return {kind for kind in kinds if kind is not None}


def sections() -> dict[str, type[BaseModel]]:
    """The sections by name."""
    return {
        name: one.annotation
        for name, one in Settings.model_fields.items()
        if isinstance(one.annotation, type) and issubclass(one.annotation, BaseModel)
    }


def options() -> dict[str, Option]:
    """All options by path."""
    inner = sections()
    found = {name: Option(name, one) for name, one in Settings.model_fields.items() if name not in inner}
    for section, model in inner.items():
        found |= {f"{section}.{name}": Option(f"{section}.{name}", one) for name, one in model.model_fields.items()}
    return found


def find_file(given: Path | None, environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file that is read: the one that is named, else trimtab.toml here, else the system's.

    Raises:
        Misconfigured: the one that is named is not there.
    """
    named = given or (Path(environ[f"{PREFIX}CONFIG"]) if environ.get(f"{PREFIX}CONFIG") else None)
    if named is not None:
        if not (folder / named).is_file():
            raise Misconfigured([Fault("config", f"there is no file {named}")])
        return folder / named
    return next((one for one in (folder / FILE, SYSTEM / FILE) if one.is_file()), None)


def read(
    overrides: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Configuration:
    """All options; `overrides` are those of the command line.

    Raises:
        Misconfigured: with everything that is wrong.
    """
    folder = folder or Path.cwd()
    file = find_file(config, environ, folder)
    gathered = Gathered()
    if file is not None:
        gathered.file(file)
    gathered.environment(environ)
    for name, value in (overrides or {}).items():
        for path, one in _flat(name, value):
            gathered.give(path, one, COMMAND_LINE)
    settings, faults = _validated(gathered.values)
    faults = [*gathered.faults, *faults]
    if faults or settings is None:
        raise Misconfigured(faults)
    origins = {path: one.origin for path, one in gathered.values.items()}
    return Configuration(settings, origins, file, gathered.notes, gathered.hints)


class Gathered:
    """What was given, by path; what comes later wins."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.hints: list[str] = []
        self._options = options()

    def give(self, path: str, value: Any, origin: str, folder: Path | None = None) -> None:
        """One value; `folder` is what relative files are relative to."""
        option = self._options[path]
        if path in FLAGS and origin != COMMAND_LINE:
            self.faults.append(Fault(path, f"{path} ({origin}): say {FLAGS[path]} on the command line, at every start"))
            return
        if value == "" and type(None) in get_args(option.field.annotation):
            value = None
        if option.is_file and folder is not None and isinstance(value, str):
            value = str(folder / Path(value).expanduser())
        self.values[path] = Value(value, origin)

    # -- files ----------------------------------------------------------------------------------

    def file(self, file: Path) -> None:
        """A file of ours (TOML), or one of Watcher's (*.conf)."""
        try:
            if file.suffix == ".conf":
                # Watcher asks for tokens unless it is told not to.
                given = {"DEFAULT.enable_authentication": "true"}
                self._watchers(given | {f"{s}.{n}": v for s, n, v in _oslo(file)}, file)
                return
            parsed = tomllib.loads(file.read_text())
        except (OSError, ValueError, cfg.ParseError) as error:
            self.faults.append(Fault("config", f"{file} cannot be read: {' '.join(str(error).split())}"))
            return
        of_watcher: dict[str, Any] = {}
        ours: dict[str, Any] = {}
        for path, value in _leaves(parsed, self._options):
            (ours if path in self._options else of_watcher)[path] = value
        self._watchers(of_watcher, file)
        for path, value in ours.items():  # the names of our own win
            self.give(path, value, str(file), file.parent)

    def _watchers(self, given: Mapping[str, Any], file: Path) -> None:
        for name, value in sorted(
            given.items(), key=lambda one: list(COUNTERPARTS).index(one[0]) if one[0] in COUNTERPARTS else 0
        ):
            section, _, option = name.rpartition(".")
            origin = f"{file} [{section}] {option}" if section else str(file)
            if name in self._options:
                self.give(name, value, origin, file.parent)
            elif name in COUNTERPARTS:
                path, converted = COUNTERPARTS[name]
                try:
                    self.give(path, converted(value, given) if converted else value, origin, file.parent)
                except ValueError as error:
                    self.faults.append(Fault(path, f"{path} ({origin}): {error}"))
            elif (why := why_unused(name)) is not None:
                self.notes.append(f"{origin} is not used: {why}")
            else:
                self.faults.append(Fault(name, f"{name} ({file}) is no option{self._nearest(name)}"))

    def _nearest(self, name: str) -> str:
        known = [*self._options, *COUNTERPARTS, *NOT_USED]
        near = difflib.get_close_matches(name, known, 1, 0.6)
        if not near:
            # Somebody may know the option, and not its section.
            last = {path.rpartition(".")[2]: path for path in known}
            near = [last[one] for one in difflib.get_close_matches(name.rpartition(".")[2], last, 1, 0.7)]
        return f": did you mean {near[0]}?" if near else "; `trimtab config show` lists all"

    # -- environment ----------------------------------------------------------------------------

    def environment(self, environ: Mapping[str, str]) -> None:
        """Variables such as TRIMTAB_PORT and TRIMTAB_CLOUD__HOSTS; a whole section may be JSON."""
        inner = sections()
        named = {}
        for variable, value in environ.items():
            if variable.upper().startswith(PREFIX):
                named[variable] = (variable[len(PREFIX) :].lower().replace("__", "."), value)
        for variable, (path, value) in sorted(named.items(), key=lambda one: one[1][0].count(".")):
            origin = f"environment {variable}"
            if path in self._options:
                self.give(path, value, origin)
            elif path in inner:
                try:
                    whole = json.loads(value)
                except ValueError:
                    self.faults.append(
                        Fault(path, f"{path} ({origin}): write the section as JSON, or {variable}__OPTION")
                    )
                    continue
                for name, one in _flat(path, whole):
                    if name in self._options:
                        self.give(name, one, origin)
                    else:
                        self.faults.append(Fault(name, f"{name} ({origin}) is no option{self._nearest(name)}"))
            elif path not in OTHERS:
                near = difflib.get_close_matches(path, self._options, 1, 0.6)
                also = f": did you mean {PREFIX}{near[0].upper().replace('.', '__')}?" if near else ""
                self.hints.append(f"{variable} is no option{also}")


def _oslo(file: Path) -> Iterator[tuple[str, str, str]]:
    """Section, option and value of a file as oslo.config reads them."""
    found: dict[str, dict[str, list[str]]] = {}
    cfg.ConfigParser(str(file), found).parse()
    for section, inside in found.items():
        for name, values in inside.items():
            yield section, name, values[-1]


def _leaves(tree: Mapping[str, Any], known: Iterable[str], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping) and path not in known and path not in NOT_USED:
            yield from _leaves(value, known, f"{path}.")
        else:
            yield path, value


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping) and name in sections():
        for inner, one in value.items():
            if one is not None:
                yield f"{name}.{inner}", one
    else:
        yield name, value


def _validated(values: Mapping[str, Value]) -> tuple[Settings | None, list[Fault]]:
    """The settings, and what is wrong; single options first, then without those what does not fit together."""
    known = options()
    faults: list[Fault] = []
    left = dict(values)
    make: Any = Settings
    while True:
        try:
            # The environment was read already: no variable begins like this.
            return make(**_nested(left), _env_prefix="nothing of the environment"), faults
        except ValidationError as error:
            found = error.errors()
        wrong: dict[str, str] = {}
        for one in found:
            if one["type"] == CONTRADICTIONS:
                return None, faults + [Fault(path, f"{path}: {text}") for path, text in one["ctx"]["faults"]]
            wrong.setdefault(_path_of(one["loc"], left), one["msg"].removeprefix("Value error, "))
        for path, message in wrong.items():
            given = left.pop(path)
            shown = "a secret" if known[path].is_secret else repr(given.value)
            meaning = f". {known[path].field.description}" if known[path].field.description else ""
            faults.append(Fault(path, f"{path} = {shown} ({given.origin}): {message}{meaning}"))


def _path_of(place: Sequence[int | str], given: Mapping[str, Value]) -> str:
    for end in (2, 1):
        path = ".".join(str(part) for part in place[:end])
        if path in given:
            return path
    raise AssertionError(f"nobody gave {place}")


def _nested(values: Mapping[str, Value]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, one in values.items():
        section, dot, name = path.partition(".")
        if dot:
            tree.setdefault(section, {})[name] = one.value
        else:
            tree[path] = one.value
    return tree


def values_of(settings: Settings, *, secrets: bool = False) -> dict[str, Any]:
    """All options by path; secrets masked, unless they are asked for."""
    found = {}
    for path in options():
        value: Any = settings
        for name in path.split("."):
            value = getattr(value, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value() if secrets else MASK
        found[path] = value
    return found


def secrets_for_all(configuration: Configuration) -> list[Fault]:
    """Secrets in a file that every user of the machine can read."""
    file = configuration.file
    if file is None or not file.stat().st_mode & 0o004:
        return []
    known = options()
    inside = [path for path, origin in configuration.origins.items() if origin.startswith(str(file))]
    told = ", ".join(path for path in inside if known[path].is_secret)
    return [Fault("config", f"{file} can be read by everybody and has {told}: chmod o= {file}")] if told else []


def check_files(settings: Settings) -> list[Fault]:
    """What is wrong with the files that options name; they are read as the service would read them."""
    from trimtab.platform.rules import read_rules
    from trimtab.serve import policy

    faults = []
    for path, option in options().items():
        value = values_of(settings)[path]
        if option.is_file and path != "data_dir" and value is not None and not Path(value).is_file():
            faults.append(Fault(path, f"{path} = {str(value)!r}: there is no such file"))
    broken = {fault.path for fault in faults}
    if settings.policy_file is not None and "policy_file" not in broken:
        faults += [Fault("policy_file", text) for text in policy.read_rules(settings.policy_file)[1]]
    if settings.rules_file is not None and "rules_file" not in broken:
        try:
            read_rules(settings.rules_file)
        except InvalidInput as error:
            faults.append(Fault("rules_file", f"rules_file: {error}"))
    return faults
