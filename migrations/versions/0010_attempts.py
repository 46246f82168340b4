"""The story of a call that had a choice of targets, kept with its log row; roles are among what snapshots hear of

Instant: a column without a default, and triggers.

Revision ID: 0010
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0012"
branch_labels = None
depends_on = None


# Whose keys may know who served a call follows from roles.
ROLES_TOLD = """
CREATE TRIGGER user_roles_inserted AFTER INSERT ON user_roles REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_config_change('user_id');
CREATE TRIGGER user_roles_updated AFTER UPDATE ON user_roles REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_config_change('user_id');
CREATE TRIGGER user_roles_deleted AFTER DELETE ON user_roles REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_config_change('user_id');
"""
ROLES_UNTOLD = """
DROP TRIGGER user_roles_inserted ON user_roles;
DROP TRIGGER user_roles_updated ON user_roles;
DROP TRIGGER user_roles_deleted ON user_roles;
"""
CHANGES_OF_USERS = """
DROP TRIGGER users_changed ON users;
CREATE TRIGGER users_changed AFTER UPDATE ON users FOR EACH ROW
    WHEN ({condition}) EXECUTE FUNCTION notify_row_change('id');
"""
DELETED = "OLD.is_deleted IS DISTINCT FROM NEW.is_deleted"
ADMIN = "OLD.is_admin IS DISTINCT FROM NEW.is_admin"


def upgrade():
    op.add_column("http_analytics", sa.Column("attempts", postgresql.JSONB(), nullable=True))
    op.execute(ROLES_TOLD)
    op.execute(CHANGES_OF_USERS.format(condition=f"{DELETED} OR {ADMIN}"))


def downgrade():
    op.execute(CHANGES_OF_USERS.format(condition=DELETED))
    op.execute(ROLES_UNTOLD)
    op.drop_column("http_analytics", "attempts")
