"""Alembic's environment, through Flask-Migrate: one transaction a migration, one migrator at a time, a lock time-out."""

import re
import time

import click
from alembic import context
from flask import current_app
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

PARTITION = re.compile(r"^http_analytics_p\d{8}$")
MIGRATION_LOCK = 0x6477_6374_6C00


def get_metadata():
    return current_app.extensions["migrate"].db.metadata


def include_object(obj, name, type_, reflected, compare_to):
    """Day partitions come and go by themselves, so they are no difference between tables and database."""
    return not (type_ == "table" and reflected and PARTITION.match(name or ""))


def include_name(name, type_, parent_names):
    return type_ != "schema" or name in (None, "fusillade")


def connected():
    engine = current_app.extensions["migrate"].db.engine
    try:
        return engine.connect()
    except OperationalError as error:
        raise click.ClickException(f"The database does not answer: {error.orig}") from None


def run_migrations_online():
    with connected() as connection:
        # Two release commands at once: the second waits, then finds nothing to do. It asks again and again, since a statement that waits has
        # a snapshot, and an index that is built without locking waits for those: the two would wait for each other.
        while not connection.scalar(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}
        ):
            connection.commit()
            time.sleep(0.2)
        # A migration that cannot get its lock soon must not queue up every call behind it.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.execute(text("SET statement_timeout = 0"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=get_metadata(),
            include_schemas=True,
            include_object=include_object,
            include_name=include_name,
            compare_type=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()


run_migrations_online()
