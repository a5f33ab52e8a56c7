"""Small things that are done every few seconds beside the worker's loop, in one thread: webhooks are
delivered, new cases are indexed, trials of retrieval that turn out worse are stopped, the audit chain is anchored once a day.

An errand is a function without arguments that does a little and returns; what it leaves undone it finds again at the next round, so
nothing is lost when the process dies. An errand that fails holds up no other. Started by `core.worker`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from core.audit_anchor import Daily
from core.desk.search import refresh
from core.errors import UserError
from core.retrieval_trials import watch_trials
from core.webhooks import deliver_due

log = logging.getLogger("consilium.errands")

Errand = Callable[[], object]
#: cases indexed in one round: the write lock is held for a fraction of a second
CASES_AT_ONCE = 500
ERRANDS: tuple[Errand, ...] = (deliver_due, partial(refresh, CASES_AT_ONCE), watch_trials, Daily())


class Errands:
    """The thread. `every_s` is the pause between rounds."""

    def __init__(self, errands: Sequence[Errand] = ERRANDS, every_s: float = 3.0) -> None:
        self._errands = tuple(errands)
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="errands", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; what is under way is finished or done again by the next worker."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            for errand in self._errands:
                try:
                    errand()
                except (SQLAlchemyError, UserError, OSError):  # a locked or full database: the next round finds everything there
                    log.exception("an errand was not done")
