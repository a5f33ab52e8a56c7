"""Move the whole record between SQLite and PostgreSQL, and prove that it arrived.

The source is held still (SQLite: its write lock; PostgreSQL: the writers' lock) and never changed; everything goes into the target in one
transaction that is committed only when every table has as many rows, the audit chain verifies there with its anchors, ends with the same
hash, and every signed decision is the one in its entry. Called by `./run.sh move-to-postgres` and `move-to-sqlite`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from core import audit, audit_rows, health
from core.audit_anchor import points
from core.errors import UserError
from core.home import Home
from db import copying
from db.engine import Database, explain


@dataclass(frozen=True, slots=True)
class Moved:
    """What arrived and was verified there."""

    url: str
    num_tables: int
    num_rows: int
    num_entries: int
    num_decisions: int


def move(home: Home, target_url: str, *, on_table: Callable[[str, int], None] | None = None) -> Moved:
    """Copy the home's database to `target_url`, which is empty or does not exist yet (SQLite).

    Raises UserError("postgres.running" / "postgres.same" / "postgres.target_taken" / "postgres.other_version" / "postgres.row_refused" /
    "postgres.counts_differ" / "postgres.chain_differs"), Unavailable for a database that does not answer.
    """
    if any(process.is_running for process in health.processes()):
        raise UserError("postgres.running")
    if make_url(target_url) == make_url(home.settings.url):
        raise UserError("postgres.same")
    source, target = Database(home.settings.url), Database(target_url)
    try:
        _prepare(target)
        with source.writer.begin() as old, target.writer.begin() as new:
            return _copy(home, old, new, on_table)
    except DBAPIError as error:
        raise (explain(error) or error) from error
    finally:
        source.dispose()
        target.dispose()


def _prepare(target: Database) -> None:
    """The target's tables at this program's version. Refuses one that holds anything, before a table is made in it."""
    from db.migrate import migrate, newest_revision  # alembic is slow to import, and no other command needs it

    with target.reader.connect() as connection:
        revision = copying.revision_of(connection)
        if revision is None and copying.holds_tables(connection):
            raise UserError("postgres.target_taken", url=_shown(target.url))
        if revision is not None and revision != newest_revision():
            raise UserError("postgres.other_version", url=_shown(target.url))
    if revision is None:
        migrate(target.url)


def _copy(home: Home, old: Connection, new: Connection, on_table: Callable[[str, int], None] | None) -> Moved:
    if any(copying.counts(new).values()):
        raise UserError("postgres.target_taken", url=_shown(str(new.engine.url)))
    if copying.revision_of(old) != copying.revision_of(new):
        raise UserError("postgres.other_version", url=_shown(str(new.engine.url)))
    wanted = copying.counts(old)
    num_rows = copying.copy_rows(old, new, on_table)
    found = copying.counts(new)
    for name, number in wanted.items():
        if found[name] != number:
            raise UserError("postgres.counts_differ", table=name, wanted=number, found=found[name])
    with Session(old) as before, Session(new) as after:
        there, here = audit.examine(before, points=points(home)), audit.examine(after, points=points(home))
        if here.broken is not None or (here.num_entries, here.last_hash) != (there.num_entries, there.last_hash):
            raise UserError("postgres.chain_differs", entry=here.broken.entry_id if here.broken else here.last_id)
        num_decisions, broken = audit_rows.decisions(after)
        if broken is not None:
            raise UserError("postgres.chain_differs", entry=broken.entry_id)
    return Moved(_shown(str(new.engine.url)), len(found), num_rows, here.num_entries, num_decisions)


def _shown(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)
