"""Move an index to a search engine, or back into its own files, and let it answer from there.

Put the rows -> count them -> compare the ten best of sample questions -> a new version that differs from the active one in nothing
but where it is searched -> activate. The switch is the one pointer that every version has, so going back is `index activate` with
the old number. Until then the old version answers. A move that was stopped or killed goes on where it was, also as another job:
what is there stands in indexes/<name>/.moving-<engine>-v<version>.json.

    python -m training.index_move --run-dir DIR        (config.json: core.jobs.configs_retrieval.IndexMoveConfig)
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from core import audit
from core.errors import NotFound, UserError
from core.jobs.configs_retrieval import IndexMoveConfig
from core.retrieval import engine_moves as moves
from core.retrieval import index_versions as versions
from core.retrieval.engines.choose import engine_of
from core.retrieval.engines.remote import Place
from core.retrieval.index import Index, load_index
from core.retrieval.lexical import link_or_copy
from core.retrieval.versions_on_disk import MANIFEST, read_manifest, seal
from db.engine import write_session
from training.run import Run, main


def run_move(run: Run) -> None:
    """Everything in order. Raises NotFound("index.nothing_to_update"), UserError("engines....") and EngineDown."""
    config = run.config(IndexMoveConfig)
    active = versions.active_version(config.name)
    if active is None:
        raise NotFound("index.nothing_to_update", name=config.name)
    index = load_index(run.home.resolve(active.path))
    now = (index.manifest.get("engine") or {}).get("kind", "own")
    if now == config.to:
        raise UserError("engines.already_there", name=config.name, version=active.version, kind=now)
    place, compared = None, None
    if config.to != "own":
        place, compared = _fill(run, config, index, active.version)
    version = _install(run, config, index.folder, active.version, place)
    reason = config.reason or f"{now} -> {config.to}"
    with write_session() as session:
        detail = {
            "name": config.name,
            "from": now,
            "to": config.to,
            "before": active.version,
            "version": version,
            "rows": index.num_entries,
        }
        if compared:
            detail |= {
                "held": compared.num_held,
                "questions": compared.num,
                "equal": compared.num_equal,
                "overlap": compared.overlap,
                "scale": compared.scale,
            }
        audit.record(session, "index_move", "search_index", f"{config.name} v{version}", actor_id=None, detail=detail, reason=reason)
    if config.activate:
        versions.activate(config.name, version, by=None, reason=reason)
    _notes(run, config, active.version).unlink(missing_ok=True)
    run.result(index=config.name, is_active=config.activate, removed_versions=versions.remove_old(run.home, config.name), **detail)


def _fill(run: Run, config: IndexMoveConfig, index: Index, version: int) -> tuple[Place, moves.Compared]:
    """Bring the rows there and prove that they are found. Nothing is switched by it."""
    engine = engine_of(run.home.settings, config.to)
    print(f"{config.to}: {engine.health()}", flush=True)
    notes = _notes(run, config, version)
    if notes.is_file():
        place = Place.of(json.loads(notes.read_text())["place"])
        if not engine.exists(place.collection):  # somebody removed it: begin again
            moves.note(notes, place, 0)
    else:
        place = moves.new_place(config.to, index, version)
        moves.note(notes, place, 0)
    total = moves.num_batches(index)

    def on_batch(done: int) -> None:
        run.progress("index", min(done, total), total)
        run.leave_if_stopped()

    moves.put_all(index, engine, place, notes, on_batch)
    try:
        moves.check_count(index, engine, place, version)
    except UserError:
        moves.note(notes, place, 0)  # the next move puts everything once more: rows of the same number are replaced
        raise
    held = frozenset(json.loads(notes.read_text())["held"])
    compared = moves.compare(index, engine, place, config.num_questions, held)
    print(
        f"{compared.num_equal} of {compared.num} sample questions find the same ten, scale {compared.scale:.6g}, vectors {compared.overlap}"
    )
    for question in compared.different:
        print(f"  differs: {question}", flush=True)
    if not compared.is_same:
        overlap = "-" if compared.overlap is None else f"{compared.overlap:.2f}"
        raise UserError("engines.answers_differ", engine=config.to, num=compared.num, num_equal=compared.num_equal, overlap=overlap)
    return moves.scaled(place, compared), compared


def _install(run: Run, config: IndexMoveConfig, base: Path, based_on: int, place: Place | None) -> int:
    """A version of the same files, by links, with another place in its manifest."""
    note = run.dir / "version.txt"
    version = versions.claim(config.name, run.job_id or None, note)
    if versions.folder_of(config.name, version).is_dir():  # killed between the rename and the row
        versions.install(config.name, version)
        return version
    scratch = run.home.indexes / config.name / f".moving-{run.dir.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    for path in base.rglob("*"):
        if path.is_file() and path.name != MANIFEST:
            (scratch / path.relative_to(base)).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, scratch / path.relative_to(base))
    seal(scratch, {**read_manifest(base), "version": version, "engine": place.as_manifest() if place else None})
    versions.install(config.name, version, scratch, note=f"{config.to}")
    return version


def _notes(run: Run, config: IndexMoveConfig, version: int) -> Path:
    return run.home.indexes / config.name / f".moving-{config.to}-v{version}.json"


if __name__ == "__main__":
    main(run_move)
