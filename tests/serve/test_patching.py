"""JSON patches: Watcher's rules and words, and the same results as a general JSON patch library."""

from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonpointer import JsonPointerException

from trimtab.platform.errors import InvalidInput
from trimtab.serve.patching import Operation, apply, read

FIELDS: dict[str, Any] = {
    "name": "a",
    "state": "PENDING",
    "parameters": {"x": 1, "deep": {"y": [1, 2]}},
    "scope": [],
    "interval": None,
}


def patched(*operations: dict[str, Any], **rules: Any) -> dict[str, Any]:
    return apply(FIELDS, read(list(operations)), **rules)


def op(verb: str, path: str, value: Any = "v") -> dict[str, Any]:
    return {"op": verb, "path": path} | ({} if verb == "remove" else {"value": value})


def test_operations_are_applied_in_order_to_a_copy() -> None:
    before = {**FIELDS, "parameters": {"x": 1, "deep": {"y": [1, 2]}}}
    after = patched(
        op("replace", "/name", "b"),
        op("add", "/parameters/z", 5),
        op("remove", "/parameters/x"),
        op("add", "/parameters/deep/y/-", 3),
        op("replace", "/parameters/deep/y/0", 9),
        op("remove", "/interval"),
    )
    assert after == {**FIELDS, "name": "b", "parameters": {"deep": {"y": [9, 2, 3]}, "z": 5}, "interval": None}
    assert before == FIELDS
    assert patched() == FIELDS


def test_a_removed_attribute_becomes_null() -> None:
    assert patched(op("remove", "/name"))["name"] is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"op": "add"}, "Value not a valid list"),
        (None, "Value not a valid list"),
        ("text", "Value not a valid list"),
        ([5], "Wrong type. Expected '<class 'dict'>', got '<class 'int'>'"),
        ([None], "Wrong type."),
        (
            [op("move", "/x")],
            "Invalid input for field/attribute op. Value: 'move'. Value should be one of: add, remove",
        ),
        ([op("test", "/x")], "Value should be one of: add, remove, replace"),
        ([{"op": ["add"], "path": "/x", "value": 1}], "Value should be one of: add, remove, replace"),
        ([{"op": "add", "path": "/x", "value": 1, "from": "/y"}], "Unknown attribute for argument patch: from"),
        ([{"op": "add", "value": 1}], "field/attribute path. Value: 'None'. Mandatory field missing."),
        ([{"path": "/x", "value": 1}], "field/attribute op. Value: 'None'. Mandatory field missing."),
        ([op("add", "x")], "Value should match the pattern ^(/[\\w-]+)+$"),
        ([op("add", "/")], "Value should match the pattern"),
        ([op("add", "")], "Value should match the pattern"),
        ([op("add", "/a\n")], "Value should match the pattern"),
        ([op("add", "/a//b")], "Value should match the pattern"),
        ([{"op": "add", "path": 5, "value": 1}], "Wrong type. Expected '<class 'str'>', got '<class 'int'>'"),
        ([{"op": "add", "path": "/name"}], "'add' and 'replace' operations needs value"),
        ([{"op": "replace", "path": "/name"}], "'add' and 'replace' operations needs value"),
    ],
)
def test_a_patch_of_the_wrong_shape_is_refused_in_watchers_words(body: Any, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(body)
    assert text in str(refused.value)


def test_a_value_may_be_null() -> None:
    assert read([op("replace", "/interval", None)]) == (Operation("replace", "/interval", None),)


@pytest.mark.parametrize("attribute", ["created_at", "id", "links", "updated_at", "deleted_at", "uuid"])
def test_internal_attributes_can_never_be_patched(attribute: str) -> None:
    for path in (f"/{attribute}", f"/{attribute}/deeper"):
        with pytest.raises(InvalidInput, match=f"'{path}' is an internal attribute and can not be updated"):
            patched(op("replace", path))


def test_forbidden_allowed_and_mandatory_attributes_are_told_apart() -> None:
    with pytest.raises(InvalidInput, match="'/state' is an internal attribute and can not be updated"):
        patched(op("replace", "/state"), forbidden={"/state"})
    with pytest.raises(InvalidInput, match="'/name' is not an allowed attribute and can not be updated"):
        patched(op("replace", "/name"), allowed={"/state"})
    with pytest.raises(InvalidInput, match="'/state' is a mandatory attribute and can not be removed"):
        patched(op("remove", "/state"), mandatory={"/state"})
    assert patched(op("replace", "/state", "X"), allowed={"/state"}, mandatory={"/state"})["state"] == "X"


def test_a_new_root_attribute_cannot_be_added() -> None:
    with pytest.raises(InvalidInput) as refused:
        patched(op("add", "/moon"))
    assert str(refused.value) == "Adding a new attribute (/moon) to the root of  the resource is not allowed"


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (op("replace", "/moon"), "can't replace a non-existent object 'moon'"),
        (op("remove", "/moon"), "can't remove a non-existent object 'moon'"),
        (op("remove", "/parameters/moon"), "can't remove a non-existent object 'moon'"),
        (op("add", "/parameters/moon/deeper"), "member 'moon' not found in"),
        (op("add", "/name/x"), "a str has no member 'x'"),
        (op("add", "/name/x/y"), "a str has no member 'x'"),
        (op("add", "/parameters/deep/y/7"), "can't insert outside of list"),
        (op("replace", "/parameters/deep/y/2"), "can't replace a non-existent object '2'"),
        (op("replace", "/parameters/deep/y/-"), "'-' is not a valid sequence index"),
        (op("add", "/parameters/deep/y/01"), "'01' is not a valid sequence index"),
        (op("add", "/parameters/deep/y/9/z"), "member '9' not found in"),
    ],
)
def test_what_cannot_be_applied_says_why(operation: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        patched(operation)
    assert str(refused.value).startswith("Couldn't apply patch '[{'path':")
    assert f"Reason: {reason}" in str(refused.value)


NAMES = st.sampled_from(["a", "b", "c", "0", "1", "2", "-"])
VALUES = st.recursive(
    st.none() | st.integers(0, 3) | st.just("t"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
PATCHES = st.lists(
    st.builds(
        lambda verb, names, value: {"op": verb, "path": "/" + "/".join(names), "value": value},
        st.sampled_from(["add", "replace", "remove"]),
        st.lists(NAMES, min_size=1, max_size=3),
        VALUES,
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), PATCHES)
def test_patches_do_what_the_standard_says(document: dict[str, Any], patch: list[dict[str, Any]]) -> None:
    try:
        mine: Any = apply(document, read(patch))
    except InvalidInput:
        mine = None
    new_root = any(p["op"] == "add" and p["path"].count("/") == 1 and p["path"][1:] not in document for p in patch)
    try:
        applied = jsonpatch.apply_patch(document, patch)
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError):
        applied = None
    if applied is None or new_root:
        assert mine is None
    else:
        assert mine == {name: applied.get(name) for name in document}
