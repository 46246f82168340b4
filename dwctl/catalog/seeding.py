"""Endpoints and models that the settings bring along (`model_sources`): made once, by the release command, and theirs who run the place from then on."""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from dwctl.catalog import discovery, endpoints
from dwctl.catalog.routing import EVERYONE
from dwctl.catalog.tables import DeployedModel, Endpoint, ModelAccess
from dwctl.config import ConfigError, ModelSource, Settings
from dwctl.identity import bootstrap
from dwctl.identity.tables import SystemConfig
from dwctl.web import current

log = logging.getLogger(__name__)

_DONE = "endpoints_seeded"


def seed(session: Session, settings: Settings, administrator_id: UUID) -> None:
    """Make what the settings name, unless that was done before; the caller commits. Nobody is called, so a server need not be there yet.

    An endpoint or an alias that is there already is left as it is. Raises ConfigError for credentials without a secret_key.
    """
    if not settings.model_sources or session.get(SystemConfig, _DONE) is not None:
        return
    if settings.secret_key is None and any(source.api_key for source in settings.model_sources):
        raise ConfigError("model_sources: an api_key can only be stored with a secret_key")
    for source in settings.model_sources:
        _add(session, source, administrator_id)
    session.add(SystemConfig(key=_DONE, value=True))
    session.flush()


def _add(session: Session, source: ModelSource, administrator_id: UUID) -> None:
    if session.scalar(select(exists().where(Endpoint.name == source.name))):
        log.warning("endpoint not seeded", extra={"endpoint": source.name, "reason": "it is there"})
        return
    fields = {
        "name": source.name,
        "url": discovery.normalise_url(source.url),
        "api_key": source.api_key,
    }
    endpoint = endpoints.create(
        session, current.parts().sealer, fields, [], created_by=administrator_id
    )
    for model in source.default_models:
        same = exists().where(DeployedModel.alias == model.name, ~DeployedModel.deleted)
        if session.scalar(select(same)):
            log.warning("model not seeded", extra={"model": model.name, "reason": "it is there"})
            continue
        made = DeployedModel(
            model_name=model.name,
            alias=model.name,
            type=discovery.guess_type(model.name),
            hosted_on=endpoint.id,
            created_by=administrator_id,
        )
        session.add(made)
        session.flush()
        if model.add_to_everyone_group:
            session.add(
                ModelAccess(deployment_id=made.id, group_id=EVERYONE, granted_by=administrator_id)
            )


bootstrap.on_bootstrap(seed)
