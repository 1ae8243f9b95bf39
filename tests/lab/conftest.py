"""One Trimtab that looks after a real OpenStack, behind its Keystone; skipped, with the reason, where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.lab.cloud import Lab, clouds_yaml, folder_of_lab, options_of
from tests.peers import server
from tests.peers.shells import Access, Shell
from tests.peers.workers import Worker


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The control plane, with a user for Trimtab, nothing closed, and some hosts fuller than others."""
    folder = folder_of_lab()
    if folder is None:
        pytest.skip("no OpenStack to try it on: TRIMTAB_LAB names the folder of one")
    if not (folder / "clouds.yaml").exists():
        pytest.skip(f"TRIMTAB_LAB is {folder}, which has no clouds.yaml")
    made = Lab(folder)
    made.make_user()
    made.enable_all()
    made.mend()
    made.heal()
    made.unbalance()
    return made


class OnLab(server.Trimtab):
    """Trimtab's API with a token, and what tests of the lab do with it again and again."""

    balanced = ""  # the plan that balanced the load

    def act(self, actions: list[dict[str, Any]]) -> dict[str, Any]:
        """The recommended plan of exactly these actions."""
        return self.planned(goal="unclassified", strategy="actuator", parameters={"actions": actions})

    def start(self, plan: Mapping[str, Any]) -> None:
        """Start a plan."""
        self.post(f"/v1/action_plans/{plan['uuid']}/start", {})

    def ended(self, plan: Mapping[str, Any], within_s: float = 300.0) -> dict[str, Any]:
        """A plan when it has ended."""
        return self.until(f"/v1/action_plans/{plan['uuid']}", lambda body: body["state"] in server.PLAN_ENDED, within_s)

    def run(self, plan: Mapping[str, Any], within_s: float = 300.0) -> dict[str, Any]:
        """Start a plan and wait for its end."""
        self.start(plan)
        return self.ended(plan, within_s)

    def states(self, plan: Mapping[str, Any]) -> dict[str, str]:
        """Of every action of a plan: its resource and its state."""
        return {a["input_parameters"]["resource_id"]: a["state"] for a in self.actions(plan["uuid"])}


@pytest.fixture(scope="session")
def trimtab(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnLab]:
    """`trimtab up` on the lab; it knows the cloud."""
    folder = tmp_path_factory.mktemp("lab")
    file = clouds_yaml(lab, folder / "clouds.yaml")
    try:
        with server.running(folder, options_of(lab, file)) as url:
            made = OnLab(url, lab.tokens())
            lab.make_endpoint(url)
            made.until("/v1/cluster", lambda body: body["version"] > 0, 120)
            yield made
    except server.NotUpError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def openstack(lab: Lab, trimtab: OnLab) -> Iterator[Shell]:
    """The stock client, which finds Trimtab in the catalogue and gets its token from Keystone."""
    nursery = Worker("client", "shell_nursery.py")
    auth = lab.cloud.config.get_auth_args()
    options = {
        "OS_AUTH_URL": auth["auth_url"], "OS_USERNAME": auth["username"], "OS_PASSWORD": auth["password"],
        "OS_PROJECT_NAME": auth["project_name"], "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default", "OS_IDENTITY_API_VERSION": "3",
    }  # fmt: skip
    yield Shell(nursery, Access(watcher=options, openstack=options), "openstack", "1.latest")
    nursery.close()


@pytest.fixture(autouse=True)
def nothing_left_closed(lab: Lab) -> Iterator[None]:
    """Whatever a test does, no host stays disabled, unless the test says so and opens it itself."""
    yield
    lab.mend()
    closed = [host for host, status in lab.services().items() if status != "enabled"]
    lab.enable_all()
    assert not closed, f"hosts are left disabled: {json.dumps(closed)}"
