"""Which role may do what: one table, read by `guard` and by routes that decide by owner.

"All" reaches every row of a resource, "Own" only the caller's. `is_admin` passes every check. Access to models is never by role.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from dwctl.access.caller import Caller
from dwctl.roles import ROLES as ROLES


class Resource(StrEnum):
    """What is protected; the value is the word used in refusals."""

    USERS = "Users"
    GROUPS = "Groups"
    MODELS = "Models"
    COMPOSITE_MODELS = "CompositeModels"
    ENDPOINTS = "Endpoints"
    API_KEYS = "API keys"
    ANALYTICS = "Analytics"
    REQUESTS = "Requests"
    PRICING = "Pricing"
    MODEL_RATE_LIMITS = "ModelRateLimits"
    CREDITS = "Credits"
    PROBES = "Probes"
    FILES = "Files"
    BATCHES = "Batches"
    WEBHOOKS = "Webhooks"
    SYSTEM = "System"
    ORGANIZATIONS = "Organizations"
    TOOL_SOURCES = "ToolSources"
    CONNECTIONS = "Connections"


class Operation(StrEnum):
    """What is done to it."""

    CREATE = "Create"
    READ = "Read"
    UPDATE = "Update"
    DELETE = "Delete"


_LETTERS = {
    "C": Operation.CREATE,
    "R": Operation.READ,
    "U": Operation.UPDATE,
    "D": Operation.DELETE,
}

_EVERYTHING: Mapping[Resource, str] = {
    resource: "CRUD" for resource in Resource if resource is not Resource.REQUESTS
}

_ALL: Mapping[str, Mapping[Resource, str]] = {
    # Manages everything except reading raw request logs.
    "PlatformManager": _EVERYTHING,
    # Reads the request log and analytics.
    "RequestViewer": {Resource.ANALYTICS: "R", Resource.REQUESTS: "R"},
    # Grants credits and finds the users to grant them to.
    "BillingManager": {Resource.CREDITS: "CRUD", Resource.USERS: "R"},
}

_OWN: Mapping[str, Mapping[Resource, str]] = {
    "PlatformManager": _EVERYTHING,
    # The base role: sees itself, its keys, its credits.
    "StandardUser": {
        Resource.USERS: "RU",
        Resource.MODELS: "R",
        Resource.COMPOSITE_MODELS: "R",
        Resource.API_KEYS: "CRUD",
        Resource.CREDITS: "R",
        Resource.WEBHOOKS: "CRUD",
        Resource.ORGANIZATIONS: "CRU",
    },
    "RequestViewer": {Resource.USERS: "R", Resource.GROUPS: "R", Resource.CREDITS: "R"},
    "BillingManager": {Resource.CREDITS: "CRUD"},
    # Uploads files and runs batches.
    "BatchAPIUser": {Resource.FILES: "CRD", Resource.BATCHES: "CRUD"},
    # Connects external sources of batch files.
    "ConnectionsUser": {
        Resource.CONNECTIONS: "CRUD",
        Resource.FILES: "R",
        Resource.BATCHES: "R",
    },
}


def may_all(caller: Caller, resource: Resource, operation: Operation) -> bool:
    """Whether the caller may do this to every row of the resource."""
    return caller.is_admin or _holds(_ALL, caller, resource, operation)


def may_own(caller: Caller, resource: Resource, operation: Operation) -> bool:
    """Whether the caller may do this to rows of their own (holders of All may)."""
    return may_all(caller, resource, operation) or _holds(_OWN, caller, resource, operation)


def _holds(
    table: Mapping[str, Mapping[Resource, str]],
    caller: Caller,
    resource: Resource,
    operation: Operation,
) -> bool:
    letters = (table.get(role, {}).get(resource, "") for role in caller.roles)
    return any(operation in (_LETTERS[c] for c in granted) for granted in letters)
