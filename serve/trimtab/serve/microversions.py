"""API microversions: how one is negotiated, and the one table of which field exists since which version."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from trimtab.serve.faults import NotAcceptable

SERVICE = "infra-optim"
NAME = "OpenStack-API-Version"
ABSENT: Any = object()
EMPTY: tuple[Any, ...] = (None, {}, [], "")  # not worth refusing


class Version(NamedTuple):
    """An API microversion."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


LOWEST, HIGHEST = Version(1, 0), Version(1, 7)


class Since(NamedTuple):
    """Since when a field exists. Below that answers lack it, or show `below` in its place.

    `post`, `patch`: below that the body of such a request must not have it either (406).
    """

    version: Version
    below: Any = ABSENT
    post: bool = False
    patch: bool = False


# By kind of object ("v1" is the list of collections) and field: the only place that knows.
FIELDS: Mapping[tuple[str, str], Since] = {
    ("audit", "start_time"): Since(Version(1, 1), post=True),
    ("audit", "end_time"): Since(Version(1, 1), post=True),
    ("audit", "force"): Since(Version(1, 2), below=False),  # old clients were always told so
    ("v1", "data_model"): Since(Version(1, 3)),
    ("v1", "webhooks"): Since(Version(1, 4)),
    ("audit", "status_message"): Since(Version(1, 5)),
    ("action_plan", "status_message"): Since(Version(1, 5)),
    ("action", "status_message"): Since(Version(1, 5)),
    ("data_model", "server_pinned_az"): Since(Version(1, 6)),
    ("data_model", "server_flavor_extra_specs"): Since(Version(1, 6)),
    ("audit_template", "default_parameters"): Since(Version(1, 7), post=True, patch=True),
}

# Whole requests that are newer than 1.0. (POST /v1/webhooks is not among them: it works at any version.)
DATA_MODEL, PATCH_ACTION = Version(1, 3), Version(1, 5)

_NEWER: Mapping[str, tuple[tuple[str, Since], ...]] = {
    kind: tuple((name, since) for (of, name), since in FIELDS.items() if of == kind) for kind, _ in FIELDS
}


def shown(kind: str, body: dict[str, Any], asked: Version) -> dict[str, Any]:
    """The fields of an object that exist at a version; `body` itself is changed."""
    for name, since in _NEWER.get(kind, ()):
        if asked < since.version and name in body:
            if since.below is ABSENT:
                del body[name]
            else:
                body[name] = since.below
    return body


def check_posted(kind: str, body: Mapping[str, Any], asked: Version) -> None:
    """Refuse a new object that sets a field newer than the version; empty values pass.

    Raises:
        NotAcceptable: it does (406).
    """
    _check((name for name, value in body.items() if value not in EMPTY), "post", kind, asked)


def check_patched(kind: str, attributes: Iterable[str], asked: Version) -> None:
    """Refuse a patch of an attribute ("/name" or "name") newer than the version.

    Raises:
        NotAcceptable: it is (406).
    """
    _check((attribute.removeprefix("/") for attribute in attributes), "patch", kind, asked)


def _check(names: Iterable[str], request: str, kind: str, asked: Version) -> None:
    for name in names:
        since = FIELDS.get((kind, name))
        if since is not None and getattr(since, request) and asked < since.version:
            raise NotAcceptable


class VersionError(Exception):
    """The client asks for a version this service does not speak; `announce`: tell which versions it does."""

    def __init__(self, message: str, *, announce: bool) -> None:
        super().__init__(message)
        self.announce = announce


def negotiate(header: str | None) -> Version:
    """The version a request is answered in.

    Raises:
        VersionError: the version asked for is not served (406).
    """
    wanted = _asked_for(header or "")
    if wanted is None or wanted == "1":
        return LOWEST
    if wanted.lower() == "latest":
        return HIGHEST
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})*", wanted):
        return LOWEST
    parts = [int(part) for part in wanted.split(".")]
    if len(parts) != 2:
        raise VersionError(f"Invalid value for {NAME} header: {wanted}", announce=False)
    version = Version(*parts)
    served = f"The supported version range is: [{LOWEST}, {HIGHEST}]."
    if version.major != HIGHEST.major:
        raise VersionError(
            f"Mutually exclusive versions requested. Version {wanted} requested "
            f"but not supported by this service. {served}",
            announce=True,
        )
    if version > HIGHEST:
        raise VersionError(
            f"Version {wanted} was requested but the minor version is not supported by this service. {served}",
            announce=True,
        )
    return version


def _asked_for(header: str) -> str | None:
    for entry in header.split(","):
        service, _, version = entry.strip().partition(" ")
        if service.lower() == SERVICE:
            return version.strip() or None
    return None


def headers(version: Version | None) -> list[tuple[bytes, bytes]]:
    """What every answer under /v1 says about versions; None: none was agreed on."""
    said = [
        (b"vary", NAME.encode()),
        (b"openstack-api-minimum-version", str(LOWEST).encode()),
        (b"openstack-api-maximum-version", str(HIGHEST).encode()),
    ]
    if version is not None:
        said.append((b"openstack-api-version", f"{SERVICE} {version}".encode()))
    return said
