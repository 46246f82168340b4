"""Display of providers on the wire."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import ValidationError, fields

from dwctl.catalog.providers import BUILT_IN_ICONS
from dwctl.web.schemas import ApiSchema, Instant, Name, Whole

_ICON = f"A built-in key ({', '.join(BUILT_IN_ICONS)}), an https URL or a path on this server; blank: none."


def _fits_into_a_path(key: str) -> None:
    # Clients and proxies take these out of an address, however they are escaped: nobody could change or delete it.
    if key.strip() in (".", ".."):
        raise ValidationError("Must not be a dot or two.")


class ProviderSchema(ApiSchema):
    """How a provider is shown. Without a configuration of its own it has its key for a name, and nothing says who made it."""

    provider_key = Name(metadata={"description": "In lower case."})
    display_name = Name()
    icon = Name(allow_none=True)
    model_count = Whole(metadata={"description": "Models that name it in their metadata."})
    configured = fields.Boolean()
    created_by = fields.UUID(allow_none=True)
    created_at = Instant(allow_none=True)
    updated_at = Instant(allow_none=True)

    example: ClassVar[dict[str, Any]] = {
        "provider_key": "acme",
        "display_name": "Acme Inc.",
        "icon": "/icons/acme.svg",
        "model_count": 3,
        "configured": True,
        "created_by": "4f6b5f3e-5c1a-4e65-9f0c-2d1a6a3f7b10",
        "created_at": "2026-01-31T10:20:30.123456Z",
        "updated_at": "2026-01-31T10:20:30.123456Z",
    }


class ProviderCreate(ApiSchema):
    """A provider's name and icon."""

    provider_key = Name(
        required=True,
        validate=_fits_into_a_path,
        metadata={"description": "`metadata.provider` of models; case and space around it are nothing."},
    )  # fmt: skip
    display_name = Name(
        allow_none=True, metadata={"description": "The key, where it is absent or blank."}
    )
    icon = Name(longest=2048, allow_none=True, metadata={"description": _ICON})

    example: ClassVar[dict[str, Any]] = {
        "provider_key": "acme",
        "display_name": "Acme Inc.",
        "icon": "/icons/acme.svg",
    }


class ProviderUpdate(ApiSchema):
    """Absent and null fields stay as they are."""

    display_name = Name(allow_none=True, metadata={"description": "Blank: the key."})
    icon = Name(longest=2048, allow_none=True, metadata={"description": _ICON})

    example: ClassVar[dict[str, Any]] = {"display_name": "Acme", "icon": ""}
