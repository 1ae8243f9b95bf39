"""Transport of the API: paths, content types, microversions, error bodies and discovery, row by row."""

import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.platform.errors import TrimtabError
from trimtab.serve.microversions import (
    FIELDS,
    HIGHEST,
    LOWEST,
    Version,
    VersionError,
    check_patched,
    check_posted,
    negotiate,
    shown,
)
from trimtab.serve.transport import one_form

VERSION = "OpenStack-API-Version"
JSON = {"Content-Type": "application/json"}
RANGE = "The supported version range is: [1.0, 1.7]."
NOWHERE = "0f6d0e1e-5f3a-4b88-8f4c-3a0d3c5b8c11"


def fault(answer: Any) -> str:
    """The text inside Watcher's doubly encoded error."""
    inner = json.loads(answer.json()["error_message"])
    assert set(inner) == {"faultcode", "faultstring", "debuginfo"}
    assert inner["faultcode"] == ("Client" if answer.status_code < 500 else "Server")
    assert inner["debuginfo"] is None
    return str(inner["faultstring"])


# -- paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_path", "path"),
    [
        ("/", "/"),
        ("/.json", "/"),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1.json", "/v1"),
        ("/v1/goals", "/v1/goals"),
        ("/v1/goals/", "/v1/goals"),
        ("/v1/goals.json", "/v1/goals"),
        ("/goals", "/v1/goals"),
        ("/goals/dummy", "/v1/goals/dummy"),
        ("//v1///goals//dummy", "/v1/goals/dummy"),
        ("/v1//action_plans/x", "/v1/action_plans/x"),
        ("/v1/goals/detail", "/v1/goals/detail"),
        ("/v1/goals/detail/", "/v1/goals/detail/"),
        ("/metrics", "/metrics"),
        ("/openapi.json", "/openapi.json"),
        ("/healthcheck", "/v1/healthcheck"),
        ("", "/"),
        ("*", "/v1/*"),
        ("goals", "/v1/goals"),
        ("/v1/.json", "/v1"),
    ],
)
def test_paths_have_one_form(given_path: str, path: str) -> None:
    assert one_form(given_path) == path
    assert one_form(one_form(path)) == path


async def test_every_form_of_a_path_leads_to_the_same_answer(shared: Any) -> None:
    plain = await shared.get("/v1/goals/dummy")
    for path in ("/v1/goals/dummy/", "/v1/goals/dummy.json", "/goals/dummy", "/v1//goals///dummy", "/v1/goals/DUMMY"):
        assert await shared.get(path) == plain
    assert await shared.get("/.json") == await shared.get("/")


@pytest.mark.parametrize("path", ["/healthcheck", "/v1/healthcheck", "/v1/moons", "/v1/goals/dummy/moons"])
async def test_unknown_paths_are_told_in_plain_text(shared: Any, path: str) -> None:
    answer = await shared.http.get(path)
    assert answer.status_code == 404
    assert answer.json() == {"error_message": "404 Not Found\n\nThe resource could not be found.\n\n   "}


@pytest.mark.parametrize("collection", ["goals", "strategies", "audit_templates", "services", "scoring_engines"])
async def test_there_is_no_detail_of_a_member(shared: Any, collection: str) -> None:
    for path in (f"/v1/{collection}/detail/", f"/v1/{collection}/{NOWHERE}/detail"):
        answer = await shared.http.get(path)
        assert (answer.status_code, fault(answer)) == (404, f"The {collection} resource detail could not be found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/goals"),
        ("PATCH", "/v1/goals/dummy"),
        ("DELETE", "/v1/goals/dummy"),
        ("PUT", "/v1/strategies"),
        ("POST", "/v1/services"),
        ("DELETE", "/v1/scoring_engines/x"),
        ("DELETE", "/v1/audit_templates"),
        ("PUT", "/v1/audit_templates/x"),
        ("POST", "/v1/actions"),
        ("POST", "/v1/action_plans"),
    ],
)
async def test_methods_that_are_not_there(shared: Any, method: str, path: str) -> None:
    answer = await shared.http.request(method, path)
    text = f"405 Method Not Allowed\n\nThe method {method} is not allowed for this resource. \n\n "
    assert (answer.status_code, answer.json()) == (405, {"error_message": text})
    assert "GET" in answer.headers["Allow"]


async def test_head_is_not_allowed_and_options_is_always_fine(shared: Any) -> None:
    assert (await shared.http.head("/v1/goals")).status_code == 405
    for path in ("/v1/goals", "/v1/audits/x", "/"):
        answer = await shared.http.options(path)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_links_have_no_mount_prefix_but_discovery_and_locations_have_it(shared: Any) -> None:
    transport = httpx.ASGITransport(shared.app, root_path="/infra-optim")
    async with httpx.AsyncClient(transport=transport, base_url="http://cloud/infra-optim") as http:
        for root in ("/", "http://cloud/infra-optim", "http://cloud/infra-optim//"):
            assert (await http.get(root)).json()["versions"][0]["links"][0]["href"] == "http://cloud/infra-optim/v1/"
        listed = (await http.get("/v1/")).json()
        assert listed["audits"][0]["href"] == "http://cloud/infra-optim/v1/audits/"
        assert listed["links"][0]["href"] == "http://cloud/infra-optim/v1/"
        page = (await http.get("/goals", params={"limit": 1})).json()
        assert page["next"].startswith("http://cloud/v1/goals?")
        assert page["goals"][0]["links"][0]["href"].startswith("http://cloud/v1/goals/")
        made = await http.post("/v1/audit_templates", json={"name": "at", "goal": "dummy"})
        assert made.headers["Location"].startswith("http://cloud/infra-optim/v1/audit_templates/")
        assert made.headers[VERSION] == "infra-optim 1.0"


# -- bodies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "headers", "status", "text"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415, "Unknown mimetype: text/plain"),
        (b"{}", {"Content-Type": "application/octet-stream"}, 415, "Unknown mimetype: application/octet-stream"),
        (b"<a/>", {"Content-Type": "application/xml"}, 415, "Unknown mimetype: application/xml"),
        (b"name=a", {"Content-Type": "application/x-www-form-urlencoded"}, 400, "Missing argument: {arg}"),
        (b"", JSON, 400, "Missing argument: {arg}"),
        (b"", {"Content-Type": "text/plain"}, 400, "Missing argument: {arg}"),
        (b"null", JSON, 400, "Missing argument: {arg}"),
        (b"{nonsense", JSON, 400, "Request is not in valid JSON format"),
        (b'{"name": NaN}', JSON, 400, "Request is not in valid JSON format"),
        (b'{"name": 1e999}', JSON, 400, "Request is not in valid JSON format"),
        (b'{"name": "\\ud800"}', JSON, 400, "Request is not in valid JSON format"),
        (b'{"name": "\xff"}', JSON, 400, "Request is not in valid JSON format"),
        (b"[" * 5000 + b"]" * 5000, JSON, 400, "Request is not in valid JSON format"),
        (b"[" * 500 + b"]" * 500, JSON, 400, "Request is not in valid JSON format"),
        (b"5", JSON, 400, "got '<class 'int'>'"),
        (b"[]", JSON, 400, "Wrong type. Expected '<class 'dict'>', got '<class 'list'>'"),
        (b'"text"', JSON, 400, "got '<class 'str'>'"),
    ],
)
async def test_bodies_that_are_no_json_object(
    shared: Any, content: bytes, headers: dict[str, str], status: int, text: str
) -> None:
    answer = await shared.http.post("/v1/audit_templates", content=content, headers=headers)
    wanted = text.replace("{arg}", '"audit_template_postdata"')
    assert (answer.status_code, wanted in fault(answer)) == (status, True), answer.text


async def test_a_charset_changes_nothing_and_a_delete_may_say_any_content_type(shared: Any) -> None:
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    made = await shared.http.post("/v1/audit_templates", content=b'{"name": "a", "goal": "dummy"}', headers=headers)
    assert made.status_code == 201
    headers = {"Content-Type": "application/octet-stream"}
    assert (await shared.http.delete("/v1/audit_templates/a", headers=headers)).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/goals"),
        ("GET", "/v1/goals/dummy"),
        ("GET", "/v1/services/detail"),
        ("POST", "/v1/audit_templates"),
        ("PATCH", "/v1/audit_templates/x"),
        ("DELETE", "/v1/audit_templates/x"),
        ("GET", "/v1"),
    ],
)
async def test_unknown_query_parameters_are_refused_before_anything_else(shared: Any, method: str, path: str) -> None:
    answer = await shared.http.request(method, path, params={"bogus": "1"})
    assert (answer.status_code, fault(answer)) == (400, 'Unknown argument: "bogus"')


# -- microversions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "version"),
    [
        (None, LOWEST),
        ("", LOWEST),
        ("compute 2.1", LOWEST),
        ("1.1", LOWEST),
        ("infra-optim", LOWEST),
        ("infra-optim abc", LOWEST),
        ("infra-optim 1.x", LOWEST),
        ("infra-optim \xb2", LOWEST),
        ("infra-optim 1." + "9" * 5000, LOWEST),
        ("infra-optim 1", LOWEST),
        ("infra-optim 1.0", LOWEST),
        ("infra-optim 1.4", Version(1, 4)),
        ("INFRA-OPTIM 1.4", Version(1, 4)),
        ("infra-optim   1.4  ", Version(1, 4)),
        ("compute 2.1, infra-optim 1.5", Version(1, 5)),
        ("infra-optim 1.2,compute 2.1", Version(1, 2)),
        ("infra-optim latest", HIGHEST),
        ("infra-optim LaTest", HIGHEST),
        ("infra-optim 1.7", HIGHEST),
    ],
)
def test_the_version_asked_for_is_the_version_used(header: str | None, version: Version) -> None:
    assert negotiate(header) == version


@pytest.mark.parametrize(
    ("header", "announce", "text"),
    [
        ("infra-optim 10", False, "Invalid value for OpenStack-API-Version header"),
        ("infra-optim 1.2.3", False, "Invalid value for OpenStack-API-Version header"),
        (
            "infra-optim 2.0",
            True,
            f"Mutually exclusive versions requested. Version 2.0 requested but not supported by this service. {RANGE}",
        ),
        ("infra-optim 0.9", True, "Version 0.9 requested but not supported by this service."),
        (
            "infra-optim 1.999",
            True,
            f"Version 1.999 was requested but the minor version is not supported by this service. {RANGE}",
        ),
        ("infra-optim 1.8", True, "Version 1.8 was requested"),
    ],
)
async def test_versions_that_are_not_served(shared: Any, header: str, announce: bool, text: str) -> None:
    answer = await shared.http.get("/v1/goals", headers={VERSION: header})
    assert answer.status_code == 406
    assert answer.json()["error_message"].startswith("406 Not Acceptable\n\n")
    assert text in answer.json()["error_message"]
    assert VERSION not in answer.headers
    assert ("OpenStack-API-Minimum-Version" in answer.headers) == announce
    assert ("Vary" in answer.headers) == announce
    if announce:
        assert answer.headers["OpenStack-API-Maximum-Version"] == "1.7"


@given(st.text(max_size=30))
def test_any_header_is_understood_or_refused(text: str) -> None:
    with suppress(VersionError):
        assert LOWEST <= negotiate(f"infra-optim {text}") <= HIGHEST


@pytest.mark.parametrize("path", ["/v1", "/v1/goals", "/goals", "/v1/goals/nope", "/v1/moons", "/v1/goals?limit=0"])
async def test_everything_under_v1_says_its_version(shared: Any, path: str) -> None:
    answer = await shared.http.get(path, headers={VERSION: "infra-optim 1.3"})
    assert answer.headers["Vary"] == VERSION
    assert answer.headers["OpenStack-API-Minimum-Version"] == "1.0"
    assert answer.headers["OpenStack-API-Maximum-Version"] == "1.7"
    assert answer.headers[VERSION] == "infra-optim 1.3"


async def test_the_root_has_no_version_and_legacy_headers_mean_nothing(shared: Any) -> None:
    answer = await shared.http.get("/", headers={VERSION: "infra-optim 2.0"})
    assert (answer.status_code, VERSION in answer.headers, "Vary" in answer.headers) == (200, False, False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shared.app), base_url="http://trimtab") as http:
        answer = await http.get("/v1/goals", headers={"X-OpenStack-infra-optim-API-Version": "1.5"})
    assert answer.headers[VERSION] == "infra-optim 1.0"


def test_fields_are_hidden_or_replaced_below_their_version() -> None:
    for (kind, name), since in FIELDS.items():
        below = Version(1, since.version.minor - 1)
        assert shown(kind, {name: "x", "other": 1}, since.version) == {name: "x", "other": 1}
        hidden = shown(kind, {name: "x", "other": 1}, below)
        assert hidden == ({"force": False, "other": 1} if name == "force" else {"other": 1})


@pytest.mark.parametrize(
    ("kind", "name", "since"), [("audit", "start_time", (1, 1)), ("audit_template", "default_parameters", (1, 7))]
)
def test_fields_too_new_for_the_version_are_refused_when_they_say_something(
    kind: str, name: str, since: tuple[int, int]
) -> None:
    below = Version(since[0], since[1] - 1)
    check_posted(kind, {name: {"a": 1}}, Version(*since))
    check_posted(kind, {name: None}, below)
    with pytest.raises(TrimtabError, match=r"^Request not acceptable\.$"):
        check_posted(kind, {name: {"a": 1}}, below)


def test_patches_know_versions_too() -> None:
    check_patched("audit", ["/start_time", "/force"], LOWEST)
    check_patched("audit_template", ["/default_parameters"], HIGHEST)
    with pytest.raises(TrimtabError, match="Request not acceptable"):
        check_patched("audit_template", ["/name", "/default_parameters"], Version(1, 6))


# -- discovery --------------------------------------------------------------------------------------


async def test_the_root_lists_the_versions(shared: Any) -> None:
    answer = await shared.get("/")
    v1 = {
        "id": "v1",
        "status": "CURRENT",
        "max_version": "1.7",
        "min_version": "1.0",
        "links": [{"href": "http://trimtab:9322/v1/", "rel": "self"}],
    }
    assert set(answer) == {"name", "description", "versions", "default_version"}
    assert answer["name"] == "OpenStack Watcher API"
    assert (answer["versions"], answer["default_version"]) == ([v1], v1)


@pytest.mark.parametrize(
    ("version", "more"), [("1.0", set()), ("1.3", {"data_model"}), ("1.4", {"data_model", "webhooks"})]
)
async def test_v1_lists_the_collections_of_the_version(shared: Any, version: str, more: set[str]) -> None:
    answer = (await shared.http.get("/v1", headers={VERSION: f"infra-optim {version}"})).json()
    always = {"audit_templates", "audits", "actions", "action_plans", "scoring_engines", "services", "whatifs"}
    assert set(answer) == {"id", "media_types", "links"} | always | more
    assert answer["id"] == "v1"
    assert answer["media_types"] == [{"base": "application/json", "type": "application/vnd.openstack.watcher.v1+json"}]
    for name in always | more:
        assert answer[name] == [
            {"href": f"http://trimtab:9322/v1/{name}/", "rel": "self"},
            {"href": f"http://trimtab:9322/{name}/", "rel": "bookmark"},
        ]
    assert answer["links"] == [
        {"href": "http://trimtab:9322/v1/", "rel": "self"},
        {
            "href": "http://docs.openstack.org/developer/watcher/dev/api-spec-v1.html",
            "rel": "describedby",
            "type": "text/html",
        },
    ]


async def test_openapi_describes_what_dependencies_read(shared: Any) -> None:
    paths = (await shared.get("/openapi.json"))["paths"]
    names = {one["name"] for one in paths["/v1/strategies"]["get"]["parameters"] if "name" in one}
    assert names == {"limit", "marker", "sort_key", "sort_dir", "goal"}
    post = paths["/v1/audit_templates"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(post["required"]) == {"name", "goal"}
    patch = paths["/v1/audit_templates/{ident}"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
    assert patch["items"]["required"] == ["op", "path"]
    start = paths["/v1/action_plans/{ident}/start"]["post"]["requestBody"]
    assert (start["required"], start["content"]["application/json"]["schema"]["maxProperties"]) == (False, 0)


async def test_openapi_names_every_answer_and_error_and_no_422(shared: Any) -> None:
    document = await shared.get("/openapi.json")
    assert {"Goal", "AuditLine", "ActionPlan", "Error"} <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]
    names = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names.add(operation["operationId"])
            fine = [code for code in operation["responses"] if code < "300"]
            assert len(fine) == 1, (method, path)
            assert "422" not in operation["responses"]
            assert path in {"/", "/metrics"} or {"400", "406", "503"} <= set(operation["responses"])
            if "{ident}" in path:
                assert operation["responses"]["404"] == {"$ref": "#/components/responses/Error404"}
            if fine[0] in {"200", "201"}:
                assert operation["responses"][fine[0]]["content"], (method, path)
    assert len(names) == sum(map(len, document["paths"].values())), "operations have names of their own"


async def test_openapi_knows_which_fields_old_clients_lack(shared: Any) -> None:
    known = (await shared.get("/openapi.json"))["components"]["schemas"]
    for title in ("Audit", "ActionPlan", "Action", "AuditTemplate"):
        gated = set(known[title]["properties"]) - set(known[title]["required"])
        kinds = {"Audit": "audit", "ActionPlan": "action_plan", "Action": "action", "AuditTemplate": "audit_template"}
        assert gated == {name for kind, name in FIELDS if kind == kinds[title]} - {"force"}
        assert all("since microversion 1." in known[title]["properties"][name]["description"] for name in gated)
    keys = (await shared.get("/openapi.json"))["paths"]["/v1/audits"]["get"]["parameters"]
    (sort_key,) = (one["schema"]["enum"] for one in keys if one.get("name") == "sort_key")
    assert {"id", "goal_name", "created_at"} <= set(sort_key)
    assert not {"owner", "epoch", "deleted"} & set(sort_key)
