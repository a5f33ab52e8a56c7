"""Make a set of query expansions: offline from judged folders or from clicks, or with a teacher model; store it, split by family.

Nothing is stored before all rows are made, so a run that dies begins anew (what a teacher has written is kept and not asked for
again); one that was killed after storing finds its own set.

    python -m training.expansion_data --run-dir DIR    (config.json: core.jobs.configs_expansion_data.ExpansionDataConfig)
"""

from __future__ import annotations

import json
from pathlib import Path

from core.errors import Conflicting, UserError
from core.expansion import analyse, generate, sets, shape
from core.expansion.grounding import Grounding, over_folder
from core.jobs.configs_expansion_data import ExpansionDataConfig
from training.run import Run, main


def run_expansion_data(run: Run) -> None:
    """Make, refuse, augment, store."""
    config = run.config(ExpansionDataConfig)
    known = next((one for one in sets.listing() if one.name == config.name), None)
    if known is not None:
        stored = run.dir / "set.json"
        if stored.is_file() and json.loads(stored.read_text(encoding="utf-8")).get("id") == known.id:
            run.result(set=config.name, id=known.id, rows=known.num_rows, **known.splits)
            return
        raise Conflicting("expansion.name_taken", name=config.name)

    def on_progress(done: int, total: int) -> None:
        run.leave_if_stopped()  # nothing is lost: making starts anew
        run.progress("score", done, total)

    made = _make(run, config, on_progress)
    if not made.rows:
        why = ", ".join(f"{name} {num}" for name, num in made.refused.items()) or "-"
        raise UserError("expansion.nothing_made", num=sum(made.refused.values()), why=why)
    rows = generate.with_families(made.rows)
    if config.augment:
        rows = [*rows, *shape.augment_short(rows)]
    card = {"config": config.model_dump(), "refused": made.refused, "analysis": analyse.analyse(rows)}
    set_id = sets.store(config.name, rows, source=_source(config), by=None, card=card)
    (run.dir / "set.json").write_text(json.dumps({"id": set_id}), encoding="utf-8")
    counts = sets.assign_splits(set_id, by=None)
    run.result(set=config.name, id=set_id, rows=len(rows), refused=made.refused, **counts)


def _make(run: Run, config: ExpansionDataConfig, on_progress: generate.Progress) -> generate.Made:
    if config.source == "clicks":
        return generate.from_clicks(limit=config.limit, on_progress=on_progress)
    if config.source == "teacher":
        if not config.teacher:
            raise UserError("expansion.no_teacher")
        found = over_folder(_folder(config)) if config.folder and config.use_grounding else None
        journal = run.dir / "teacher.jsonl"
        return generate.by_teacher(_queries(config), config.teacher, grounding=found, journal=journal, on_progress=on_progress)
    folder = _folder(config)
    run.progress("read", 0, 0)
    grounding: Grounding | None = over_folder(folder) if config.use_grounding else None
    return generate.from_folder(folder, grounding=grounding, limit=config.limit, on_progress=on_progress)


def _queries(config: ExpansionDataConfig) -> list[str]:
    """Each query once, at most `limit`."""
    if config.queries:
        path = Path(config.queries).expanduser()
        if not path.is_file():
            raise UserError("expansion.no_file", file=path)
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    else:
        found = [pair.question for pair in generate.pairs_of(_folder(config))]
    found = list(dict.fromkeys(found))[: config.limit or None]
    if not found:
        raise UserError("expansion.no_queries")
    return found


def _folder(config: ExpansionDataConfig) -> Path:
    folder = Path(config.folder).expanduser()
    if not config.folder or not folder.is_dir():
        raise UserError("expansion.no_folder", path=config.folder or "-")
    return folder


def _source(config: ExpansionDataConfig) -> str:
    if config.source == "teacher":
        return f"teacher:{config.teacher}"
    return "clicks" if config.source == "clicks" else f"corpus:{Path(config.folder).name}"


if __name__ == "__main__":
    main(run_expansion_data)
