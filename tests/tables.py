"""What a database holds."""

from __future__ import annotations

import sqlalchemy as sa


def everything(url: str) -> dict[str, list[str]]:
    """Every row of every table."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {
            table: sorted(map(str, connection.exec_driver_sql(f"SELECT * FROM {table}")))
            for table in sa.inspect(connection).get_table_names()
        }
    engine.dispose()
    return found
