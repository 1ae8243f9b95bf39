"""Who may do what: one dependency for each rule, judged by oslo.policy with Watcher's rule names and defaults."""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from fastapi import Depends, Request
from oslo_config import cfg
from oslo_policy import policy as oslo

from trimtab.platform.errors import Forbidden, InvalidInput

log = logging.getLogger(__name__)

ADMIN = "rule:admin_api"
ROOTS = {
    "admin_api": "role:admin or role:administrator",
    "admin_or_service_api": "rule:admin_api or role:service",
    "show_password": "!",
}
OF_WATCHER = {
    "action": ("detail", "get", "get_all", "update"),
    "action_plan": ("delete", "detail", "get", "get_all", "start", "update"),
    "audit": ("create", "delete", "detail", "get", "get_all", "update"),
    "audit_template": ("create", "delete", "detail", "get", "get_all", "update"),
    "data_model": ("get_all",),
    "goal": ("detail", "get", "get_all"),
    "scoring_engine": ("detail", "get", "get_all"),
    "service": ("detail", "get", "get_all"),
    "strategy": ("detail", "get", "get_all", "state"),
}
OF_TRIMTAB = {
    "action_plan": ("check", "replan", "rollback"),
    "candidate": ("get", "get_all", "plan"),
    "cluster": ("get", "model"),
    "event": ("get_all",),
    "metrics": ("get",),
    "whatif": ("create", "delete", "get", "get_all"),
}
DEFAULTS: Mapping[str, str] = {
    **ROOTS,
    **{f"{kind}:{act}": ADMIN for table in (OF_WATCHER, OF_TRIMTAB) for kind, acts in table.items() for act in acts},
    "webhook:trigger": "rule:admin_or_service_api",
}
OF_COLLECTIONS = frozenset({"create", "detail", "get_all"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as Keystone says."""

    user_id: str
    user_name: str = ""
    roles: tuple[str, ...] = ()
    project_id: str | None = None
    project_name: str | None = None
    domain_id: str | None = None
    user_domain_id: str | None = None
    project_domain_id: str | None = None
    system_scope: str | None = None
    is_admin_project: bool = True

    def credentials(self) -> dict[str, Any]:
        """What rules may speak of."""
        found = asdict(self)
        return {**found, "roles": list(self.roles), "user": self.user_id, "tenant": self.project_id}


class Policies:
    """The rules in force: Watcher's and Trimtab's defaults, below what the operator's file says.

    The file is read again when it changes; while it cannot be used the rules that were read last stay in force.

    Raises (when it is made):
        InvalidInput: names everything that is wrong in the file.
    """

    def __init__(self, file: Path | None = None, unasked: frozenset[str] = frozenset()) -> None:
        """`unasked` are rules that everybody may break."""
        self._file = file
        self._unasked = unasked
        self._seen = self._stamp()
        self._use(self._read())

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> oslo.Enforcer:
        given: Mapping[str, str] = {}
        if self._file is not None:
            given, faults = read_rules(self._file)
            if faults:
                raise InvalidInput("; ".join(faults))
        return enforcer({**DEFAULTS, **given})

    def _use(self, judge: oslo.Enforcer) -> None:
        self._enforcer = judge
        self._remote = any("http:" in str(check) or "https:" in str(check) for check in judge.rules.values())

    def _newest(self) -> oslo.Enforcer:
        if (stamp := self._stamp()) != self._seen:
            self._seen = stamp
            try:
                self._use(self._read())
                log.info("policies were read again from %s", self._file)
            except InvalidInput as error:
                log.error("policies stay as they were: %s", error)  # noqa: TRY400 (the message says it all)
        return self._enforcer

    async def judge(self, rule: str, caller: Caller) -> None:
        """Let a caller do what a rule names.

        Raises:
            Forbidden: it must not.
        """
        if rule in self._unasked:
            return
        # No record belongs to a project: only of a collection can be said that it is the caller's own.
        own = {"project_id": caller.project_id, "user_id": caller.user_id}
        target = own if rule.partition(":")[2] in OF_COLLECTIONS else {}
        judge = self._newest()
        creds = caller.credentials()
        if self._remote:  # some rule asks a web service
            fine = await asyncio.to_thread(judge.enforce, rule, target, creds)
        else:
            fine = judge.enforce(rule, target, creds)
        if not fine:
            raise Forbidden(f"Policy doesn't allow {rule} to be performed.")


def enforcer(rules: Mapping[str, str]) -> oslo.Enforcer:
    """oslo.policy's judge over these rules and nothing else."""
    conf = cfg.ConfigOpts()
    conf([], project="trimtab", default_config_files=[], default_config_dirs=[])
    made = oslo.Enforcer(conf, use_conf=False)
    made.set_rules(oslo.Rules.from_dict(dict(rules), made.default_rule), use_conf=False)
    return made


def read_rules(file: Path) -> tuple[dict[str, str], list[str]]:
    """The rules of an operator's file, and everything that is wrong with it."""
    try:
        parsed = yaml.safe_load(file.read_text()) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        return {}, [f"policy file {file} cannot be read: {' '.join(str(error).split())}"]
    if not isinstance(parsed, dict):
        return {}, [f"policy file {file} should map rules to texts, such as `audit:get: role:reader`"]
    rules = {str(name): text for name, text in parsed.items()}
    faults = [f"policy file {file}: {fault}" for name, text in rules.items() for fault in _faults(name, text)]
    if not faults:
        everything = {**DEFAULTS, **rules}
        try:
            enforcer(everything).check_rules(raise_on_violation=True)
        except oslo.InvalidDefinitionError as error:
            faults.append(f"policy file {file}: rules that speak of unknown rules, or of themselves: {error}")
    return rules, faults


def _faults(name: str, text: object) -> Iterable[str]:
    if not isinstance(text, str):
        yield f"{name}: write the rule as a text in quotes, not {text!r}"
    elif "!" in str(oslo.Rules.from_dict({name: text})[name]) and "!" not in text:  # what oslo makes of nonsense
        yield f"{name}: {text!r} cannot be understood; write it like 'role:admin or role:reader'"


def unknown(rules: Iterable[str]) -> list[str]:
    """Hints about rules that nobody asks after; an operator's own may be meant for use in other rules."""
    hints = []
    for name in rules:
        if name not in DEFAULTS and ":" in name:
            near = difflib.get_close_matches(name, DEFAULTS, 1)
            hints.append(f"nothing asks after {name}" + (f": did you mean {near[0]}?" if near else ""))
    return hints


def allowed(rule: str) -> Any:
    """A dependency that ends a request with Forbidden (403) unless the caller may do what `rule` names.

    A route that looks one object up asks after it: `Annotated[None, allowed("audit:get")]` as a later parameter.
    """

    async def judge(request: Request) -> None:
        policies: Policies | None = getattr(request.app.state, "policies", None)
        caller: Caller | None = getattr(request.state, "caller", None)
        if policies is not None:  # it is None where nobody has to say who they are
            await policies.judge(rule, caller or Caller(""))

    judge.rule = rule  # type: ignore[attr-defined]
    return Depends(judge)
