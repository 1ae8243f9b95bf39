"""A small Python client of the HTTP API, for notebooks, scripts and the command line."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import httpx

from trimtab.platform.errors import Conflict, Forbidden, InvalidInput, NotFound, TrimtabError

Body = dict[str, Any]
ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "SUPERSEDED", "DELETED"})
STATUS: Mapping[int, type[TrimtabError]] = {400: InvalidInput, 403: Forbidden, 404: NotFound, 409: Conflict}
UNKNOWN = "a token of Keystone's that is still valid"
HOW = "set OS_CLOUD or the other OS_* variables, or export TRIMTAB_TOKEN=$(openstack token issue -f value -c id)"


class Unreachable(TrimtabError):
    """Nothing answers at the address of the API."""


def token_of_environment() -> str | None:
    """A fresh token for who OS_CLOUD (with clouds.yaml) or the other OS_* variables name; None when they name nobody.

    Raises:
        Forbidden: Keystone does not answer, or refuses; the message has its words.
    """
    if not {"OS_CLOUD", "OS_AUTH_URL"} & os.environ.keys():
        return None
    # Imported here: openstacksdk takes a while, and most commands do without.
    from keystoneauth1.exceptions import ClientException
    from openstack.config import OpenStackConfig
    from openstack.exceptions import SDKException

    try:
        token: str | None = OpenStackConfig().get_one().get_session().get_token()
    except (ClientException, SDKException) as error:
        raise Forbidden(f"Keystone gives no token to who the OS_* variables name: {error}") from error
    return token


class Client:
    """Talks to one Trimtab; with a token of Keystone's, which may also be in the environment variable TRIMTAB_TOKEN.

    Without one, or when it is over, it signs in as OS_CLOUD or the other OS_* variables say, if the API asks for that.
    OS_CACERT names the certificates that the API's own is checked against, where the machine's do not know it.

    Raises (all methods):
        Unreachable: nothing answers. InvalidInput, Forbidden, NotFound, Conflict: as the API says (400, 401 and 403,
        404, 409).
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:9322",
        timeout_s: float = 60.0,
        token: str | None = None,
        sign_in: Callable[[], str | None] = token_of_environment,
    ) -> None:
        self._sign_in = sign_in
        headers = {"OpenStack-API-Version": "infra-optim latest"}
        if token := token or os.environ.get("TRIMTAB_TOKEN"):
            headers["X-Auth-Token"] = token
        self.url = url
        trusted = ssl.create_default_context(cafile=os.environ.get("OS_CACERT"))  # or whom this machine trusts
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, verify=trusted, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> Any:
        """One request; the decoded body, or the bytes of one that is no JSON."""
        answer = self._send(method, path, **options)
        if answer.status_code == httpx.codes.UNAUTHORIZED and (token := self._sign_in()):
            self._http.headers["X-Auth-Token"] = token
            answer = self._send(method, path, **options)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise Forbidden(f"{self.url} asks for {UNKNOWN}: {HOW}")
        if answer.status_code >= 400:
            raise STATUS.get(answer.status_code, TrimtabError)(_fault(answer))
        if not answer.content:
            return None
        if answer.headers["content-type"].startswith("application/json"):
            return answer.json()
        return answer.content

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unreachable(f"nothing answers at {self.url}: start it with `trimtab up` ({error})") from error

    def all(self, collection: str, *, detail: bool = False, **filters: Any) -> list[Body]:
        """All objects of a collection: goals, strategies, scoring_engines, audit_templates, audits, actions, ..."""
        path = f"/v1/{collection}/detail" if detail else f"/v1/{collection}"
        found: list[Body] = []
        query: Mapping[str, Any] = {name: value for name, value in filters.items() if value is not None}
        while True:
            page = self.request("GET", path, params=query)
            found += page[collection]
            if "next" not in page or query.get("limit") is not None:
                return found
            query = {**query, "marker": found[-1]["uuid"]}

    def show(self, collection: str, ident: str) -> Body:
        """One object."""
        return self.request("GET", f"/v1/{collection}/{ident}")

    def create(self, collection: str, body: Body, *, key: str | None = None) -> Body:
        """Create an audit template, an audit or a what-if; asked again with the same `key`, the one that is there."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.request("POST", f"/v1/{collection}", json=body, headers=headers)

    def delete(self, collection: str, ident: str) -> None:
        """Delete an audit template, an audit, a plan or a what-if (one that has not ended is cancelled instead)."""
        self.request("DELETE", f"/v1/{collection}/{ident}")

    def candidates(self, audit: str) -> list[Body]:
        """Everything an audit weighed, winner first."""
        return self.request("GET", f"/v1/audits/{audit}/candidates")["candidates"]

    def candidate(self, audit: str, number: int) -> Body:
        """One candidate with all its steps."""
        return self.request("GET", f"/v1/audits/{audit}/candidates/{number}")

    def plan_of(self, audit_uuid: str) -> Body:
        """The newest plan of an audit, with all fields.

        Raises:
            NotFound: it has none.
        """
        plans = self.all("action_plans", detail=True, audit_uuid=audit_uuid)
        if not plans:
            raise NotFound(f"audit {audit_uuid} has no action plan")
        return plans[-1]

    def start(self, plan_uuid: str) -> Body:
        """Start a recommended plan."""
        return self.request("POST", f"/v1/action_plans/{plan_uuid}/start", json={})

    def plan_candidate(self, audit: str, number: int) -> Body:
        """A plan of a candidate that was not chosen, as the cloud is now; the audit's earlier plan is SUPERSEDED."""
        return self.request("POST", f"/v1/audits/{audit}/candidates/{number}/plan", json={})

    def check_plan(self, plan_uuid: str) -> Body:
        """Which steps of a plan that waits to be started still hold."""
        return self.request("POST", f"/v1/action_plans/{plan_uuid}/check", json={})

    def replan(self, plan_uuid: str) -> Body:
        """A new plan in place of one of which some steps do not hold any more; it waits to be started."""
        return self.request("POST", f"/v1/action_plans/{plan_uuid}/replan", json={})

    def roll_back(self, plan_uuid: str) -> Body:
        """A new plan that undoes what a plan did; it waits to be started."""
        return self.request("POST", f"/v1/action_plans/{plan_uuid}/rollback", json={})

    def cancel_plan(self, plan_uuid: str) -> Body:
        """Cancel a plan: at once, or after what is running when it is at work."""
        state = self.show("action_plans", plan_uuid)["state"]
        target = "CANCELLING" if state == "ONGOING" else "CANCELLED"
        return self._patch_state("action_plans", plan_uuid, target)

    def cancel_audit(self, ident: str) -> Body:
        """Cancel an audit."""
        return self._patch_state("audits", ident, "CANCELLED")

    def progress(self, plan_uuid: str) -> Body:
        """A plan's state and how many of its actions are in which state."""
        return self.request("GET", f"/v1/action_plans/{plan_uuid}/progress")

    def timeline(self, plan_uuid: str) -> list[Body]:
        """When each action of a plan began and ended."""
        return self.request("GET", f"/v1/action_plans/{plan_uuid}/timeline")["actions"]

    def effect(self, plan_uuid: str) -> Body:
        """Rehearsed and measured score of a plan."""
        return self.request("GET", f"/v1/action_plans/{plan_uuid}/effect")

    def explanation(self, plan_uuid: str, action: str | None = None) -> list[Body]:
        """Why each action is in a plan, in the plan's order; only that of one action (uuid) when it is named."""
        return self.because(plan_uuid, action)["explanation"]

    def because(self, plan_uuid: str, action: str | None = None) -> Body:
        """Why a plan is as it is: `because` for the whole, `explanation` for each action."""
        query: dict[str, Any] = {} if action is None else {"action": action}
        whole: Body = {}
        while True:
            page = self.request("GET", f"/v1/action_plans/{plan_uuid}/explanation", params=query)
            whole = {**page, "explanation": [*whole.get("explanation", ()), *page["explanation"]]}
            if "next" not in page:
                return whole
            query["marker"] = page["explanation"][-1]["action_uuid"]
            whole.pop("next")

    def notes(self, plan_uuid: str) -> list[str]:
        """What planning left out of a plan, and why."""
        page = self.request("GET", f"/v1/action_plans/{plan_uuid}/explanation", params={"limit": 1})
        return list(page["notes"])

    def cluster(self) -> Body:
        """Figures of the cluster as last collected."""
        return self.request("GET", "/v1/cluster")

    def metrics(self) -> str:
        """Prometheus metrics as text."""
        content: bytes = self.request("GET", "/metrics")
        return content.decode()

    def model_table(self, name: str) -> bytes:
        """One table of the cluster model (nodes, instances, server_groups) as Parquet."""
        return self.request("GET", f"/v1/cluster/model/{name}")

    def create_whatif(self, scenario: Body, *, key: str | None = None) -> Body:
        """Start a sweep; without a base it is about the running cloud as it is now; `key` as for `create`."""
        return self.create("whatifs", scenario, key=key)

    def cells(self, whatif: str, **filters: Any) -> list[Body]:
        """Finished cells of a sweep; filters: topology, load, policy, seed, sort_key, sort_dir, limit."""
        query = {name: value for name, value in filters.items() if value is not None}
        found: list[Body] = []
        while True:
            page = self.request("GET", f"/v1/whatifs/{whatif}/cells", params=query)
            found += page["cells"]
            if "next" not in page or filters.get("limit") is not None:
                return found
            query["marker"] = found[-1]["key"]

    def cell_series(self, whatif: str, key: str) -> dict[str, list[Any]]:
        """The series of one cell, column by column."""
        return self.request("GET", f"/v1/whatifs/{whatif}/cells/{key}/series")["columns"]

    def whatif_report(self, whatif: str, x: str = "energy_kwh", y: str = "overload_min") -> str:
        """The report of a sweep, as HTML."""
        content: bytes = self.request("GET", f"/v1/whatifs/{whatif}/report", params={"x": x, "y": y})
        return content.decode()

    def cancel_whatif(self, whatif: str) -> Body:
        """Cancel a sweep that has not ended; what is finished stays to be read.

        Raises:
            Conflict: it has ended.
        """
        if (state := self.show("whatifs", whatif)["state"]) in ENDED:
            raise Conflict(f"what-if {whatif} is {state} already: delete it to remove its results")
        self.delete("whatifs", whatif)
        return self.show("whatifs", whatif)

    def wait(
        self,
        collection: str,
        ident: str,
        *,
        timeout_s: float = 600.0,
        every_s: float = 0.2,
        seen: Callable[[Body], None] | None = None,
    ) -> Body:
        """Wait until an audit, a plan or a what-if has ended; `seen` gets every look.

        Raises:
            TrimtabError: it has not ended in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            body = self.show(collection, ident)
            if seen is not None:
                seen(body)
            if body["state"] in ENDED:
                return body
            if time.monotonic() > deadline:
                raise TrimtabError(f"{collection} {ident} is still {body['state']} after {timeout_s:.0f} s")
            time.sleep(every_s)

    def _patch_state(self, collection: str, ident: str, state: str) -> Body:
        patch = [{"op": "replace", "path": "/state", "value": state}]
        return self.request("PATCH", f"/v1/{collection}/{ident}", json=patch)


def _fault(answer: httpx.Response) -> str:
    """What the API says went wrong, out of its doubly encoded body."""
    try:
        message = answer.json()["error_message"]
    except (ValueError, KeyError):
        return f"HTTP {answer.status_code}"
    try:
        return str(json.loads(message)["faultstring"])
    except ValueError:
        return str(message)
