"""Roles of a PostgreSQL database: owner of the tables, worker, and read-only viewer."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb.models import BaseModel
from sqlalchemy.engine import make_url

from clrsearch.errors import StorageError
from clrsearch.storage.engine import has_studies, open_database, plain_engine, storage_errors
from clrsearch.storage.slots import SLOT_TABLE
from clrsearch.storage.url import StorageUrl

_LOCK = 0x636C7273  # key of the advisory lock that serializes callers
_TABLES = [*BaseModel.metadata.tables, "alembic_version", SLOT_TABLE]
_OURS = "JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname = current_schema()"

_OWNERS = sa.text(
    f"""
    SELECT t.relname AS name, pg_get_userbyid(t.relowner) AS owner
    FROM pg_class t {_OURS}
    WHERE t.relkind = 'r' AND t.relname = ANY(:tables) ORDER BY 1
    """
)
_TYPES = sa.text(
    f"""
    SELECT DISTINCT y.typname AS name, pg_get_userbyid(y.typowner) AS owner
    FROM pg_type y JOIN pg_attribute a ON a.atttypid = y.oid
    JOIN pg_class t ON t.oid = a.attrelid {_OURS}
    WHERE y.typtype = 'e' AND t.relname = ANY(:tables) ORDER BY 1
    """
)
_SEQUENCES = sa.text(
    f"""
    SELECT s.relname FROM pg_class s
    JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass
    JOIN pg_class t ON t.oid = d.refobjid {_OURS}
    WHERE s.relkind = 'S' AND d.deptype IN ('a', 'i') AND t.relname = ANY(:tables) ORDER BY 1
    """
)

_INSTEAD = {
    "sqlite": "SQLite has no roles: the permissions of the file and its folder control access. "
    "For roles, keep the studies in PostgreSQL",
    "mysql": "roles can only be created in PostgreSQL. In MySQL, grant privileges by hand: ALL on "
    "the database to the owner, SELECT, INSERT, UPDATE to workers, SELECT to viewers",
}


class Role(StrEnum):
    """Access levels.

    Owners may do everything, including upgrades; workers work on studies but cannot delete them;
    viewers only read.
    """

    OWNER = "owner"
    WORKER = "worker"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRole:
    """A role's name on the server, and whether it was newly created."""

    role: Role
    name: str
    created: bool


def make_roles(url: StorageUrl, urls: Mapping[Role, StorageUrl]) -> list[MadeRole]:
    """Create or update the roles of a database, and its tables if they are missing. Idempotent.

    Passwords do not leave this process: the server gets SCRAM verifiers.

    Args:
        url: opens the database as a user who may create roles.
        urls: the URL each role will use, with its name and password.

    Raises:
        StorageError: the database has no roles, the URLs do not fit, or the server refuses.
    """
    if url.dialect in _INSTEAD:
        raise StorageError(f"{url}: {_INSTEAD[url.dialect]}")
    credentials = {role: _credentials(url, role, urls[role]) for role in Role}
    names = {role: name for role, (name, _) in credentials.items()}
    if len({*names.values(), url.user}) < len(names) + 1:
        raise StorageError(
            "owner, worker, viewer and the user who creates them must have different names, "
            f"not {', '.join([*names.values(), str(url.user)])}"
        )
    with storage_errors(url), plain_engine(url).begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        if not has_studies(url):  # tables of an earlier version are the owner's to upgrade
            with open_database(url, create=True):
                pass
        made = [
            MadeRole(role=role, name=name, created=_make_role(connection, name, password))
            for role, (name, password) in credentials.items()
        ]
        _grant(connection, names)
    return made


def _credentials(admin: StorageUrl, role: Role, url: StorageUrl) -> tuple[str, str]:
    found, wanted = make_url(url.reveal()), make_url(admin.reveal()).database
    place = url.kept_in or f"the {role}'s URL"
    if url.dialect != "postgresql" or found.database != wanted:
        raise StorageError(f"{place} must point to the PostgreSQL database {wanted}, not {url}")
    if not found.username or not found.password:
        raise StorageError(f"{place} must contain the {role}'s user name and password, not {url}")
    return found.username, str(found.password)


def _make_role(connection: sa.Connection, name: str, password: str) -> bool:
    """Create a login role, or update its password; returns whether it was created."""
    query = sa.text("SELECT rolsuper, rolcanlogin FROM pg_roles WHERE rolname = :name")
    there = connection.execute(query, {"name": name}).one_or_none()
    if there is not None and there.rolsuper:
        raise StorageError(f"{name} is a superuser, whose access is not limited: use another name")
    if there is None:
        _run(connection, "CREATE ROLE {} LOGIN", name)
    elif not there.rolcanlogin:
        _run(connection, "ALTER ROLE {} LOGIN", name)
    kept = None
    if connection.scalar(sa.text("SELECT has_table_privilege('pg_authid', 'SELECT')")):
        query = sa.text("SELECT rolpassword FROM pg_authid WHERE rolname = :name")
        kept = connection.scalar(query, {"name": name})
    if kept is None or not is_password(password, kept):
        driver: Any = connection.connection.driver_connection
        encrypted = driver.pgconn.encrypt_password(
            password.encode(), name.encode(), b"scram-sha-256"
        )
        _run(connection, "ALTER ROLE {} PASSWORD {verifier}", name, verifier=encrypted.decode())
    return there is None


def is_password(password: str, verifier: str) -> bool:
    """Whether ``verifier`` is a server's SCRAM verifier of this password: RFC 5802, section 3.

    StoredKey = SHA-256(HMAC(PBKDF2(password, salt, iterations), "Client Key")). Passwords with
    non-ASCII characters are normalised by the driver but not here, so they never match.
    """
    method, _, rest = verifier.partition("$")
    if method != "SCRAM-SHA-256" or not password.isascii():
        return False
    head, _, keys = rest.partition("$")
    iterations, _, salt = head.partition(":")
    salted = hashlib.pbkdf2_hmac(
        "sha256", password.encode(), base64.b64decode(salt), int(iterations)
    )
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64decode(keys.partition(":")[0])
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored)


def _grant(connection: sa.Connection, names: Mapping[Role, str]) -> None:
    """Grant each role exactly what it needs, on existing and future tables."""
    owner, worker, viewer = (names[role] for role in Role)
    schema, database, superuser = connection.execute(
        sa.text(
            "SELECT current_schema(), current_database(), rolsuper "
            "FROM pg_roles WHERE rolname = current_user"
        )
    ).one()
    if not superuser:  # needs membership in the owner to change ownership
        _run(connection, "GRANT {} TO CURRENT_USER", owner)
    _run(connection, "GRANT CONNECT ON DATABASE {} TO {}, {}, {}", database, *names.values())
    _run(connection, "GRANT USAGE, CREATE ON SCHEMA {} TO {}", schema, owner)
    _run(connection, "GRANT USAGE ON SCHEMA {} TO {}, {}", schema, worker, viewer)
    ours = {"tables": _TABLES}
    tables = connection.execute(_OWNERS, ours).all()
    for kind, rows in (("TABLE", tables), ("TYPE", connection.execute(_TYPES, ours).all())):
        for name, before in rows:
            if before != owner:
                _run(connection, f"ALTER {kind} {{}}.{{}} OWNER TO {{}}", schema, name, owner)
    for table, _ in tables:
        _run(connection, "REVOKE ALL ON {}.{} FROM {}, {}", schema, table, worker, viewer)
        _run(connection, "GRANT SELECT, INSERT, UPDATE ON {}.{} TO {}", schema, table, worker)
        _run(connection, "GRANT SELECT ON {}.{} TO {}", schema, table, viewer)
    for sequence in connection.scalars(_SEQUENCES, ours).all():
        _run(connection, "REVOKE ALL ON SEQUENCE {}.{} FROM {}", schema, sequence, viewer)
        _run(connection, "GRANT USAGE ON SEQUENCE {}.{} TO {}", schema, sequence, worker)
    later = "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT "
    _run(connection, later + "SELECT, INSERT, UPDATE ON TABLES TO {}", owner, schema, worker)
    _run(connection, later + "USAGE ON SEQUENCES TO {}", owner, schema, worker)
    _run(connection, later + "SELECT ON TABLES TO {}", owner, schema, viewer)


def _run(connection: sa.Connection, statement: str, *names: str, **literals: str) -> None:
    """Run a statement without parameters, with names and literals quoted by the driver."""
    from psycopg import sql

    composed = sql.SQL(statement).format(
        *map(sql.Identifier, names), **{key: sql.Literal(each) for key, each in literals.items()}
    )
    text = composed.as_string(connection.connection.driver_connection)
    connection.exec_driver_sql(text, execution_options={"no_parameters": True})
