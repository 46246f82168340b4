"""Groups and who is in them. Everybody is in Everyone, which has no membership rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Select, Uuid, delete, literal, or_, select, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.config import Settings
from dwctl.db import among
from dwctl.errors import Forbidden, NotFound
from dwctl.identity import users
from dwctl.identity.tables import NIL, Group, GroupMembership, User
from dwctl.web import pagination

EVERYONE = NIL
NATIVE = "native"


def get(session: Session, group_id: UUID, *, lock: bool = False) -> Group:
    """The group; locked until the end of the transaction on request. Raises NotFound."""
    found = session.get(Group, group_id, with_for_update=lock or None)
    if found is None:
        raise NotFound(f"Group with ID {group_id} not found")
    return found


def by_name(search: str | None) -> Select[Group]:
    """Groups whose name or description contains the text."""
    query = select(Group).order_by(Group.name, Group.id)
    pattern = pagination.substring(search)
    if pattern:
        columns = (Group.name, Group.description)
        query = query.where(pagination.found_in(pattern, *columns))
    return query


def create(session: Session, *, name: str, description: str | None, created_by: UUID) -> Group:
    """A group of our own (not an identity provider's)."""
    group = Group(name=name, description=description, created_by=created_by, source=NATIVE)
    session.add(group)
    session.flush()
    return group


def change(group: Group, *, name: str | None, description: str | None, settings: Settings) -> None:
    """Rename or describe; None leaves as is. Everyone stays as it is, and a name by which an identity provider finds its group."""
    if group.id == EVERYONE:
        raise Forbidden("Cannot UpdateAll Group: Cannot update the Everyone group")
    if name not in (None, group.name) and _is_provided(group, settings):
        raise Forbidden(
            f"Cannot UpdateAll Group: Its name comes from the identity provider {group.source}"
        )
    group.name = group.name if name is None else name
    group.description = group.description if description is None else description
    group.updated_at = clock.now()


def remove(session: Session, group: Group) -> None:
    """Delete the group with its memberships and grants."""
    if group.id == EVERYONE:
        raise Forbidden("Cannot DeleteAll Group: Cannot delete the Everyone group")
    session.delete(group)
    session.flush()


def of_accounts(session: Session, ids: Iterable[UUID]) -> dict[UUID, list[Group]]:
    """The groups of each account by name, Everyone last."""
    wanted = list(ids)
    found: dict[UUID | None, list[Group]] = {account_id: [] for account_id in (*wanted, None)}
    own = select(GroupMembership.user_id, GroupMembership.group_id)
    everyone = select(literal(None, Uuid()), literal(EVERYONE, Uuid()))
    held = union_all(own.where(among(GroupMembership.user_id, wanted)), everyone).subquery()
    rows = session.execute(
        select(held.c.user_id, Group)
        .join(Group, Group.id == held.c.group_id)
        .where(or_(held.c.user_id.is_(None), Group.id != EVERYONE))
        .order_by(Group.name, Group.id)
    )
    for account_id, group in rows:
        found[account_id].append(group)
    return {account_id: [*found[account_id], *found[None]] for account_id in wanted}


def members_of(session: Session, ids: Iterable[UUID]) -> dict[UUID, list[User]]:
    """The members of each group in the order in which they joined; none for Everyone, which has no rows."""
    found: defaultdict[UUID, list[User]] = defaultdict(list)
    members = users.accounts().join(GroupMembership, GroupMembership.user_id == User.id)
    rows = session.execute(
        members.add_columns(GroupMembership.group_id)
        .where(GroupMembership.group_id.in_(list(ids)))
        .order_by(GroupMembership.joined_at, GroupMembership.id)
    )
    for user, group_id in rows:
        found[group_id].append(user)
    return found


def members(group: Group, search: str | None) -> Select[User]:
    """The accounts in a group, newest first, narrowed to names and e-mails that contain the text; every account for Everyone."""
    query = users.accounts()
    if group.id != EVERYONE:
        of_group = select(GroupMembership.user_id).where(GroupMembership.group_id == group.id)
        query = query.where(User.id.in_(of_group))
    return users.newest_first(query, search)


def member_ids(session: Session, group: Group) -> list[UUID]:
    """Ids of a group's members, oldest membership first; of every account for Everyone."""
    if group.id == EVERYONE:
        everybody = users.accounts().with_only_columns(User.id)
        return list(session.scalars(everybody.order_by(User.created_at, User.id)))
    return [user.id for user in members_of(session, [group.id])[group.id]]


def add(session: Session, group_id: UUID, account_id: UUID, settings: Settings) -> None:
    """Make the account a member; nothing happens where it is one already."""
    group = _editable(session, group_id, settings)
    try:
        users.get(session, account_id, stays=True)
    except NotFound:
        raise NotFound from None
    if group.id != EVERYONE:
        _insert(session, group.id, account_id)


def drop(session: Session, group_id: UUID, account_id: UUID, settings: Settings) -> None:
    """Take the account out of the group. Raises NotFound where it is not in it."""
    group = _editable(session, group_id, settings)
    if group.id == EVERYONE:
        raise Forbidden("Cannot UpdateAll Group: Nobody can leave the Everyone group")
    gone = session.execute(
        delete(GroupMembership)
        .where(GroupMembership.group_id == group_id, GroupMembership.user_id == account_id)
        .returning(GroupMembership.id)
    )
    if gone.first() is None:
        raise NotFound


def follow_provider(session: Session, user: User, provider: str, names: Iterable[str]) -> None:
    """Make the user's memberships in the groups of an identity provider be exactly these names.

    Missing groups are made. A name that belongs to a group from elsewhere is left alone. Other people's memberships are not touched.
    """
    wanted = set(names)
    held = {
        group.name: group
        for group in of_accounts(session, [user.id])[user.id]
        if group.source == provider and group.id != EVERYONE
    }
    leaving = [group.id for name, group in held.items() if name not in wanted]
    if leaving:
        session.execute(
            delete(GroupMembership).where(
                GroupMembership.user_id == user.id, GroupMembership.group_id.in_(leaving)
            )
        )
    new = sorted(wanted - held.keys())
    if new:
        _join_provided(session, user, provider, new)


def _join_provided(session: Session, user: User, provider: str, names: list[str]) -> None:
    """Make what is missing and join all of them: two statements, however many there are. In the order of names, as everybody does it."""
    made = insert(Group).values(
        [
            {
                "name": name,
                "description": f"Group of the identity provider {provider}",
                "created_by": NIL,
                "source": provider,
            }
            for name in names
        ]
    )
    session.execute(made.on_conflict_do_nothing(index_elements=["name"]))
    theirs = select(literal(user.id), Group.id).where(
        Group.name.in_(names), Group.source == provider
    )
    joined = insert(GroupMembership).from_select(["user_id", "group_id"], theirs.order_by(Group.id))
    session.execute(joined.on_conflict_do_nothing())


def _insert(session: Session, group_id: UUID, account_id: UUID) -> None:
    row = insert(GroupMembership).values(group_id=group_id, user_id=account_id)
    session.execute(row.on_conflict_do_nothing())


def _editable(session: Session, group_id: UUID, settings: Settings) -> Group:
    # It stays until the transaction ends.
    group = session.get(Group, group_id, with_for_update={"read": True, "key_share": True})
    if group is None:
        raise NotFound
    if _is_provided(group, settings):
        raise Forbidden(
            f"Cannot UpdateAll Group: Its members come from the identity provider {group.source}"
        )
    return group


def _is_provided(group: Group, settings: Settings) -> bool:
    """Whether the next sign-in would undo what is done to it by hand."""
    return settings.auth.proxy_header.import_idp_groups and group.source != NATIVE
