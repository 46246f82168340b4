"""Sign-in of a command line: two API keys for whoever is signed in in the browser, or for an organisation of theirs.

By default the keys stand in the redirection to the command line, as existing clients expect. One that brings a challenge gets a code there
instead, which it exchanges for keys within a minute: no secret passes through the browser (RFC 7636 and 8252).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.access.caller import Caller
from dwctl.errors import Invalid
from dwctl.identity import api_keys, organizations, tokens, users
from dwctl.identity.tables import CommandLineCode, User

CODE_AGE_S = 60
_DESCRIPTION = "Created by dw login"
_ONE_LATER = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Account:
    """Who signs in, and the organisation whose keys are wanted (None: the person's own)."""

    person: User
    organization: User | None

    @property
    def owner(self) -> User:
        """Whose keys they will be."""
        return self.organization or self.person

    @property
    def name(self) -> str:
        """`alice`, or `alice@acme.example`."""
        if self.organization is None:
            return self.person.username
        return f"{self.person.username}@{self.organization.username}"


def account_of(session: Session, caller: Caller, organization: str | None) -> Account:
    """The account that is meant. Raises Invalid for an organisation, by user name or display name, that is none of the caller's."""
    person = users.get(session, caller.user_id)
    if organization is None:
        return Account(person, None)
    wanted = organization.strip().lower()
    own = [membership.organization_id for membership in caller.memberships]
    named = select(User).where(
        User.id.in_(own),
        or_(func.lower(User.username) == wanted, func.lower(User.display_name) == wanted),
    )
    # The user name is the one that is unique.
    found = session.scalars(named.order_by(func.lower(User.username) != wanted, User.id)).first()
    if found is None:
        raise Invalid(
            f"You are not a member of an organization named '{organization}'", param="org"
        )
    return Account(person, found)


def make_keys(session: Session, account: Account) -> dict[str, str]:
    """Two new keys, and what the command line is told with them, in the order in which it is told. The person is locked by now; the caller commits."""
    organization = account.organization
    if organization is not None and not organizations.holds_membership(
        session, account.person.id, organization.id
    ):
        raise Invalid("You are not a member of this organization any more", param="org")
    # To the microsecond: two sign-ins of one person within a second must not want one name.
    at = clock.now().strftime("%Y%m%d-%H%M%S-%f")
    made = {
        purpose: api_keys.create(
            session,
            owner_id=account.owner.id,
            creator_id=account.person.id,
            name=f"DW CLI {name} ({at})",
            description=_DESCRIPTION,
            purpose=purpose,
        )
        for purpose, name in (("platform", "platform"), ("realtime", "inference"))
    }
    inference, inference_secret = made["realtime"]
    platform, platform_secret = made["platform"]
    # Lists are newest first, and clients know the inference key as the upper one.
    inference.created_at = platform.created_at + _ONE_LATER
    told = {
        "inference_key": inference_secret,
        "inference_key_id": str(inference.id),
        "platform_key": platform_secret,
        "platform_key_id": str(platform.id),
        "user_id": str(account.owner.id),
        "email": account.person.email,
        "display_name": account.person.display_name or account.person.username,
        "account_name": account.name,
        "account_type": "personal" if organization is None else "organization",
    }
    if organization is not None:
        told |= {"org_name": organization.username, "org_id": str(organization.id)}
    return told


def make_code(session: Session, account: Account, caller: Caller, challenge: str) -> str:
    """A code that whoever knows the challenge's secret may exchange once, within a minute, as long as the caller's login session lasts."""
    code = tokens.new()
    session.add(
        CommandLineCode(
            code_hash=tokens.fingerprint(code),
            challenge=challenge,
            user_id=account.person.id,
            organization_id=account.organization.id if account.organization else None,
            login_session_id=caller.login_session_id,
            expires_at=func.now() + timedelta(seconds=CODE_AGE_S),
        )
    )
    return code


def exchange(session: Session, code: str, verifier: str) -> dict[str, str]:
    """What `make_keys` gives, for a code. The code is gone, whatever comes of it; the caller commits, also after Invalid."""
    same = CommandLineCode.code_hash == tokens.fingerprint(code)
    # The person before the code: whoever takes away their credentials has locked them, and then ends their sessions and the codes of these.
    holder = select(CommandLineCode.user_id).where(same).scalar_subquery()
    person = session.scalar(users.people().where(User.id == holder).with_for_update(read=True))
    gone = delete(CommandLineCode).where(same)
    found = session.execute(
        gone.returning(
            CommandLineCode.organization_id,
            CommandLineCode.challenge,
            (CommandLineCode.expires_at > func.now()).label("is_valid"),
        )
    ).one_or_none()
    if found is None or person is None or not found.is_valid:
        raise _unknown_code()
    if not _matches(found.challenge, verifier):
        raise _unknown_code()
    organization_id: UUID | None = found.organization_id
    organization = None if organization_id is None else users.get(session, organization_id)
    return make_keys(session, Account(person, organization))


def _unknown_code() -> Invalid:
    return Invalid("Invalid or expired code", code="invalid_code")


def _matches(challenge: str, verifier: str) -> bool:
    digest = hashlib.sha256(verifier.encode()).digest()
    ours = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return hmac.compare_digest(ours, challenge)
