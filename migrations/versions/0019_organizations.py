"""Invitations by address in any case, found by their token; members are people, organisations are organisations

Takes a moment: the checks look at `user_organizations` once.

Revision ID: 0019
Revises: 0018
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# Rows that mean nothing (nobody's, or between accounts of the wrong kind) can only have been written by hand.
ROWS = """
DELETE FROM user_organizations m
 WHERE (m.user_id IS NULL AND (m.status = 'active' OR m.invite_email IS NULL))
    OR NOT EXISTS (SELECT FROM users o WHERE o.id = m.organization_id AND o.user_type = 'organization')
    OR EXISTS (SELECT FROM users u WHERE u.id = m.user_id AND u.user_type <> 'individual');
DELETE FROM user_organizations m USING user_organizations older
 WHERE m.status = 'pending' AND older.status = 'pending' AND m.organization_id = older.organization_id
   AND lower(m.invite_email) = lower(older.invite_email) AND (older.created_at, older.id) < (m.created_at, m.id);
"""

TABLE = """
ALTER TABLE user_organizations
    ADD CONSTRAINT user_organizations_member_check CHECK (user_id IS NOT NULL OR status = 'pending'),
    ADD CONSTRAINT user_organizations_whom_check CHECK (user_id IS NOT NULL OR invite_email IS NOT NULL);
DROP INDEX user_organizations_invite_unique;
CREATE UNIQUE INDEX user_organizations_invite_unique ON user_organizations (lower(invite_email), organization_id)
    WHERE status = 'pending';
CREATE UNIQUE INDEX user_organizations_invite_token_unique ON user_organizations (invite_token_hash)
    WHERE invite_token_hash IS NOT NULL;
CREATE INDEX user_organizations_expires_at_idx ON user_organizations (expires_at) WHERE status = 'pending';
"""

TRIGGER = """
CREATE FUNCTION check_membership() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM users WHERE id = NEW.organization_id AND user_type = 'organization') THEN
        RAISE EXCEPTION 'user_organizations.organization_id must be an organization' USING ERRCODE = '23514';
    END IF;
    IF EXISTS (SELECT FROM users WHERE id = NEW.user_id AND user_type <> 'individual') THEN
        RAISE EXCEPTION 'user_organizations.user_id must be an individual' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER user_organizations_kinds BEFORE INSERT OR UPDATE OF user_id, organization_id ON user_organizations
    FOR EACH ROW EXECUTE FUNCTION check_membership();
"""

BACK = """
DROP TRIGGER user_organizations_kinds ON user_organizations;
DROP FUNCTION check_membership;
DROP INDEX user_organizations_expires_at_idx;
DROP INDEX user_organizations_invite_token_unique;
DROP INDEX user_organizations_invite_unique;
CREATE UNIQUE INDEX user_organizations_invite_unique ON user_organizations (invite_email, organization_id)
    WHERE status = 'pending';
ALTER TABLE user_organizations
    DROP CONSTRAINT user_organizations_member_check,
    DROP CONSTRAINT user_organizations_whom_check;
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute(ROWS)
    op.execute(TABLE)
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute(BACK)
