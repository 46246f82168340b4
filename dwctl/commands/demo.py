"""What `dwctl up --demo` puts into the database: an endpoint, two models that everyone may call, prices, a key and some credit.

Every start makes sure of it, so it can be called again on data that is there; what somebody changed in between is left as it is.
"""

from __future__ import annotations

import secrets
from decimal import Decimal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.billing import ledger
from dwctl.billing.tables import Tariff
from dwctl.catalog.routing import EVERYONE
from dwctl.catalog.tables import DeployedModel, Endpoint, ModelAccess
from dwctl.identity import api_keys
from dwctl.local.demo_upstream import CHAT_MODEL, EMBEDDING_MODEL

ENDPOINT = "demo"
CREDIT = Decimal(100)
_LITTLE = Decimal(1)
_MODELS = {CHAT_MODEL: "CHAT", EMBEDDING_MODEL: "EMBEDDINGS"}
_PRICES = {("realtime", None): 2, ("batch", "1h"): 1, ("batch", "24h"): 1}
"""Purpose and window to the price of a million input tokens in USD; output costs twice as much."""


def install(
    session: Session, *, owner_id: UUID, upstream_url: str, known_secret: str | None
) -> str:
    """Have it all there for this owner; the caller commits.

    Returns: the secret of an API key that works, `known_secret` if that one still does.
    """
    endpoint = _endpoint(session, owner_id, upstream_url)
    for alias, kind in _MODELS.items():
        _model(session, owner_id, endpoint, alias, kind)
    _credit(session, owner_id)
    return _key(session, owner_id, known_secret)


def _endpoint(session: Session, owner_id: UUID, url: str) -> Endpoint:
    found = session.scalar(select(Endpoint).where(Endpoint.name == ENDPOINT))
    if found is None:
        text = "A small upstream that comes with dwctl and repeats what it hears"
        found = Endpoint(name=ENDPOINT, description=text, url=url, created_by=owner_id)
        session.add(found)
    found.url = url  # its port is another one at every start
    session.flush()
    return found


def _model(session: Session, owner_id: UUID, endpoint: Endpoint, alias: str, kind: str) -> None:
    same = select(DeployedModel.id).where(DeployedModel.alias == alias, ~DeployedModel.deleted)
    if session.scalar(same) is not None:
        return
    model = DeployedModel(
        model_name=alias, alias=alias, type=kind, hosted_on=endpoint.id, created_by=owner_id
    )
    session.add(model)
    session.flush()
    session.add(ModelAccess(deployment_id=model.id, group_id=EVERYONE, granted_by=owner_id))
    for (purpose, window), usd in _PRICES.items():
        tariff = Tariff(
            deployed_model_id=model.id,
            name=f"demo {window or purpose}",
            input_price_per_token=Decimal(usd) / 1_000_000,
            output_price_per_token=Decimal(2 * usd) / 1_000_000,
            api_key_purpose=purpose,
            completion_window=window,
        )
        session.add(tariff)


def _credit(session: Session, owner_id: UUID) -> None:
    if ledger.balances(session, [owner_id])[owner_id] < _LITTLE:
        ledger.grant(
            session,
            user_id=owner_id,
            amount=CREDIT,
            source_id=ledger.internal_source(owner_id),
            description="Credit for trying dwctl out",
            granted_by=None,
        )


def _key(session: Session, owner_id: UUID, known_secret: str | None) -> str:
    names = set()
    for key in session.scalars(api_keys.visible(owner_id, created_by=owner_id)):
        if known_secret and key.secret_hash == api_keys.fingerprint(known_secret):
            return known_secret
        names.add(key.name)
    name = "demo" if "demo" not in names else f"demo {secrets.token_hex(3)}"
    return api_keys.create(session, owner_id=owner_id, creator_id=owner_id, name=name)[1]
