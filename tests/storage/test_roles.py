"""Three roles on a server of the tests' own: what each may do, and that doing it twice is idle."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from optuna.study import StudyDirection
from private_postgres import PASSWORD, private_postgres

from clrsearch.errors import StorageError
from clrsearch.storage import Role, Slots, StorageUrl, make_roles, open_database, upgrade
from clrsearch.storage.roles import is_password

TABLES = "clrsearch_slots", "studies", "trials", "trial_values", "alembic_version"
EVIL = 'a "quoted"; DROP TABLE studies; %s {} name'


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with private_postgres() as found:
        yield found


@dataclass
class Server:
    """A new database, with roles of its own names: roles belong to the whole server."""

    port: int
    database: str = field(default_factory=lambda: f"db_{uuid.uuid4().hex[:8]}")
    admin: str = "me"

    def __post_init__(self) -> None:
        with psycopg.connect(self.conninfo("me", PASSWORD, "postgres"), autocommit=True) as there:
            there.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(self.identifier))

    @property
    def identifier(self):
        return psycopg.sql.Identifier(self.database)

    def conninfo(self, user, password, database=None) -> str:
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=password,
            dbname=database or self.database,
        )

    def url(self, user, password, database=None) -> StorageUrl:
        made = sa.URL.create(
            "postgresql", user, password, "127.0.0.1", self.port, database or self.database
        )
        return StorageUrl(made.render_as_string(hide_password=False))

    def name(self, role) -> str:
        return f"{self.database}_{role}"

    def urls(self, **passwords) -> dict[Role, StorageUrl]:
        return {role: self.url(self.name(role), passwords.get(role, "secret")) for role in Role}

    def make(self, **passwords):
        return make_roles(self.url(self.admin, PASSWORD), self.urls(**passwords))

    def ask(self, query, user="me", password=PASSWORD):
        with psycopg.connect(self.conninfo(user, password)) as there:
            cursor = there.execute(query)
            return cursor.fetchall() if cursor.description else None

    def refused(self, query, user, password="secret") -> bool:
        with pytest.raises(psycopg.Error) as caught:
            self.ask(query, user, password)
        return caught.value.sqlstate == "42501"


@pytest.fixture
def server(port) -> Server:
    return Server(port)


def catalog(server) -> list[tuple[object, ...]]:
    """All that PostgreSQL knows of the roles and of the tables."""
    return [
        row
        for query in (
            "SELECT oid, rolname, rolsuper, rolcreaterole, rolcreatedb, rolpassword FROM pg_authid",
            "SELECT roleid, member, admin_option FROM pg_auth_members",
            "SELECT relname, relowner, relacl::text FROM pg_class WHERE relnamespace IN "
            "(SELECT oid FROM pg_namespace WHERE nspname = 'public')",
            "SELECT typname, typowner, typacl::text FROM pg_type",
            "SELECT nspname, nspowner, nspacl::text FROM pg_namespace",
            "SELECT defaclrole, defaclobjtype, defaclacl::text FROM pg_default_acl",
            "SELECT datname, datdba, datacl::text FROM pg_database WHERE datname = "
            "current_database()",
        )
        for row in sorted(map(tuple, server.ask(query)), key=str)
    ]


def test_a_new_database_gets_tables_and_roles_and_a_second_time_changes_nothing(server) -> None:
    made = server.make()
    assert [(each.role, each.created) for each in made] == [(role, True) for role in Role]
    before = catalog(server)
    assert [each.created for each in server.make()] == [False] * 3
    assert catalog(server) == before
    owners = server.ask("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners == [(server.name("owner"),)]
    flags = "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname ~ '^db_'"
    assert set(server.ask(flags)) == {(False, False, False)}


def test_a_worker_reads_and_writes_and_removes_nothing(server) -> None:
    server.make()
    worker = server.name("worker")
    with open_database(server.urls()[Role.WORKER]) as database:
        slots = Slots(database.engine, "mine")
        slots.grow(["cyclic"] * 2)
        slot = slots.claim("w")
        assert slot is not None
        assert slots.renew(slot)
        study = database.optuna.create_new_study([StudyDirection.MINIMIZE])
        database.optuna.set_study_user_attr(study, "key", 1)
        database.optuna.set_study_user_attr(study, "key", 2)  # an upsert
    for table in TABLES:
        assert server.refused(f"DELETE FROM {table}", worker)
        assert server.refused(f"TRUNCATE {table}", worker)
        assert server.refused(f"DROP TABLE {table}", worker)
    assert server.refused("CREATE TABLE mine (x int)", worker)
    assert server.refused("SELECT * FROM pg_authid", worker)


def test_a_viewer_reads_and_writes_nothing(server) -> None:
    server.make()
    viewer = server.name("viewer")
    for table in TABLES:
        server.ask(f"SELECT * FROM {table}", viewer, "secret")
        assert server.refused(f"INSERT INTO {table} DEFAULT VALUES", viewer)
        assert server.refused(f"DELETE FROM {table}", viewer)
    assert server.refused("UPDATE studies SET study_name = 'x'", viewer)
    assert server.refused("SELECT nextval('studies_study_id_seq')", viewer)
    assert server.refused("CREATE TABLE mine (x int)", viewer)
    with open_database(server.urls()[Role.VIEWER]) as database:
        assert database.optuna.get_all_studies() == []


def test_a_role_that_may_not_is_told_in_one_line(server) -> None:
    server.make()
    viewer, worker = (server.urls()[role] for role in (Role.VIEWER, Role.WORKER))
    with (
        pytest.raises(StorageError, match="permission denied for table clrsearch_slots") as write,
        open_database(viewer) as database,
    ):
        Slots(database.engine, "mine").grow(["cyclic"])
    with (
        pytest.raises(StorageError, match="permission denied for table study_directions") as delete,
        open_database(worker) as database,
    ):
        study = database.optuna.create_new_study([StudyDirection.MINIMIZE])
        database.optuna.delete_study(study)
    empty = server.url(server.name("worker"), "secret", Server(server.port).database)
    with (
        pytest.raises(StorageError, match="permission denied for schema public") as create,
        open_database(empty, create=True),
    ):
        pass
    with pytest.raises(StorageError, match="permission denied to create role") as make:
        other = {role: server.url(f"{server.name(role)}_2", "x") for role in Role}
        make_roles(worker, other)
    for caught, role in ((write, "viewer"), (delete, "worker"), (create, "worker")):
        assert f"the role {server.name(role)} is not allowed to do that" in str(caught.value)
    for caught in (write, delete, create, make):
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_tables_that_the_owner_makes_later_are_covered(server) -> None:
    server.make()
    server.ask("CREATE TABLE later (id serial, x int)", server.name("owner"), "secret")
    server.ask("INSERT INTO later (x) VALUES (1)", server.name("worker"), "secret")
    assert server.ask("SELECT x FROM later", server.name("viewer"), "secret") == [(1,)]
    assert server.refused("INSERT INTO later (x) VALUES (1)", server.name("viewer"))


def test_the_owner_upgrades_and_the_worker_does_not(server) -> None:
    server.make()
    server.ask("ALTER TABLE clrsearch_slots DROP COLUMN checkpoint")
    server.ask("DROP INDEX ix_trials_study_id")
    server.ask("UPDATE alembic_version SET version_num = 'v3.0.0.d'")  # of Optuna 3.2
    urls = server.urls()
    with pytest.raises(StorageError, match="clrsearch db upgrade"), open_database(urls["worker"]):
        pass
    with pytest.raises(StorageError, match="must be owner of table"):
        upgrade(urls[Role.WORKER])
    assert not any(each.created for each in server.make())  # whatever the version
    assert upgrade(urls[Role.OWNER]).columns == ("checkpoint",)
    with open_database(urls[Role.WORKER]):
        pass


def test_a_database_that_was_there_before_is_brought_to_its_owner(server) -> None:
    with open_database(server.url("me", PASSWORD), create=True) as database:
        study = database.optuna.create_new_study([StudyDirection.MINIMIZE])
    server.ask("CREATE TABLE of_another_program (x int)")
    server.make()
    assert server.refused("SELECT * FROM of_another_program", server.name("worker"))
    with open_database(server.urls()[Role.WORKER]) as database:
        assert database.optuna.get_all_studies()[0]._study_id == study


def test_what_was_granted_beside_is_taken_back(server) -> None:
    server.make()
    worker, viewer = server.name("worker"), server.name("viewer")
    server.ask(f"GRANT DELETE ON studies TO {worker}")
    server.ask(f"GRANT INSERT ON studies TO {viewer}")
    server.ask(f"GRANT USAGE ON SEQUENCE studies_study_id_seq TO {viewer}")
    server.make()
    assert server.refused("DELETE FROM studies", worker)
    assert server.refused("INSERT INTO studies (study_name) VALUES ('x')", viewer)
    assert server.refused("SELECT nextval('studies_study_id_seq')", viewer)


def test_another_password_is_the_one_that_counts_from_then_on(server) -> None:
    server.make()
    server.make(worker="another one: ü@/%")
    server.ask("SELECT 1", server.name("worker"), "another one: ü@/%")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        server.ask("SELECT 1", server.name("worker"), "secret")
    server.ask("SELECT 1", server.name("viewer"), "secret")


def test_two_that_make_them_at_once_make_them_once(server) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [made.result() for made in [pool.submit(server.make) for _ in range(2)]]
    assert sorted(each.created for made in both for each in made) == [False] * 3 + [True] * 3


def test_names_are_quoted(port) -> None:
    server = Server(port, database=f"{EVIL} {uuid.uuid4().hex[:4]}")
    server.make(owner="it's \\ a password")
    server.ask("SELECT * FROM studies", server.name("owner"), "it's \\ a password")
    assert server.refused("DELETE FROM studies", server.name("worker"))


def test_one_who_may_create_roles_need_not_be_a_superuser(server) -> None:
    server.admin = f"{server.database}_admin"
    server.ask(f"CREATE ROLE {server.admin} LOGIN CREATEROLE PASSWORD '{PASSWORD}'")
    server.ask(f"ALTER DATABASE {server.database} OWNER TO {server.admin}")
    assert all(each.created for each in server.make())
    assert not any(each.created for each in server.make())
    assert server.refused("DELETE FROM studies", server.name("worker"))
    server.ask("SELECT * FROM studies", server.name("viewer"), "secret")


def test_what_does_not_fit_is_refused_before_anything_is_written(server, tmp_path) -> None:
    admin, urls = server.url("me", PASSWORD), server.urls()
    elsewhere = server.url("x", "secret", "elsewhere")
    nobody = StorageUrl(f"postgresql://127.0.0.1:{server.port}/{server.database}")
    lite = StorageUrl(f"sqlite:///{tmp_path}/x.db")
    for changed, words in (
        ({Role.WORKER: urls[Role.OWNER]}, "different names"),
        ({Role.OWNER: admin}, "different names"),
        ({Role.VIEWER: elsewhere}, f"must point to the PostgreSQL database {server.database}"),
        ({Role.VIEWER: lite}, f"must point to the PostgreSQL database {server.database}"),
        ({Role.VIEWER: nobody}, "must contain the viewer's user name and password"),
    ):
        with pytest.raises(StorageError, match=words) as caught:
            make_roles(admin, urls | changed)
        assert "secret" not in str(caught.value)
    assert server.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    server.ask(f"CREATE ROLE {server.name('viewer')} SUPERUSER")
    with pytest.raises(StorageError, match="is a superuser"):
        make_roles(admin, urls)
    names = "SELECT rolname FROM pg_roles WHERE rolname LIKE current_database() || '%'"
    assert server.ask(names) == [(server.name("viewer"),)]  # the others were rolled back


@pytest.mark.parametrize("dialect", ["sqlite", "mysql"])
def test_databases_without_roles_say_what_to_do_instead(dialect, tmp_path: Path, server) -> None:
    text = {"sqlite": f"sqlite:///{tmp_path}/x.db", "mysql": "mysql://me:secret@127.0.0.1/db"}
    words = {"sqlite": "permissions of the file", "mysql": "SELECT, INSERT, UPDATE to workers"}
    with pytest.raises(StorageError, match=words[dialect]) as caught:
        make_roles(StorageUrl(text[dialect]), server.urls())
    assert "secret" not in str(caught.value)


def test_what_scram_keeps_of_a_password() -> None:
    kept = (  # salt and password of the example in RFC 7677, section 3
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert is_password("pencil", kept)
    assert not is_password("pencils", kept)
    assert not is_password("pencil", "md5a0b1c2")
