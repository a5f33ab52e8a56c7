"""The import itself: read and validate everything first, then store it in one transaction, so nothing is ever half-imported.

`preview` is for the Data page, `import_file` for the import job and the command line. Both go through the same rows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import Conflicting, UserError
from core.importing import readers
from core.importing.card import write_card
from core.importing.duplicates import near_duplicates
from core.importing.readers import RawRow, RowError
from core.importing.recognise import KINDS, missing_fields, recognise_kind, recognise_mapping
from core.importing.risk import prompt_risk
from core.importing.rows import Item, convert
from core.importing.screening import clean_params, kinds_of, look, masked
from core.importing.splitting import assign
from core.importing.store import held_out, store_items
from core.jobs.configs import ImportConfig
from core.quarantine import Screen, hold, open_screen
from core.records import TRAINING_SPLITS, Split
from db import tables as t
from db.engine import read_session, write_session

Progress = Callable[[str, int, int], None]
MOST_ERRORS = 1000


@dataclass(slots=True)
class Preview:
    """The first rows as they would be stored; what identifies a person is masked in `items`, and `held` says in which rows."""

    columns: list[str]
    kind: str
    mapping: dict[str, str]
    missing: list[str]
    encoding: str
    items: list[Item]
    errors: list[RowError]
    raw: list[dict[str, Any]]
    #: row number to kinds found
    held: dict[int, dict[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What happened to every row; stored with the dataset and shown on its card."""

    kind: str
    mapping: dict[str, str]
    encoding: str
    file_sha256: str
    num_rows: int = 0
    num_imported: int = 0
    num_rejected: int = 0
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    num_exact_duplicates: int = 0
    num_near_duplicates: int = 0
    near_duplicates: list[dict[str, Any]] = field(default_factory=list)
    num_leaks: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    risks: dict[str, int] = field(default_factory=dict)
    num_completions: int = 0
    num_pairs: int = 0
    num_judgements: int = 0
    num_conflicts: int = 0
    #: what was done with rows that identify a person (quarantine, surrogate, off), how many rows, and how often each kind
    privacy_action: str = "quarantine"
    privacy_note: str = ""
    num_quarantined: int = 0
    num_surrogates: int = 0
    identifiers: dict[str, int] = field(default_factory=dict)


def preview(path: Path, *, kind: str = "", mapping: Mapping[str, str] | None = None, encoding: str = "", limit: int = 20) -> Preview:
    """Read the first `limit` rows and show what they would become. Raises UserError for a file that cannot be read."""
    form = readers.detect_format(path)
    encoding = encoding or ("" if form == "parquet" else readers.detect_encoding(path))
    rows = list(islice(readers.read_rows(path, encoding), limit))
    raw = [r.values for r in rows if isinstance(r, RawRow)]
    if not raw:
        raise UserError("data.no_rows", path=path.name)
    columns = list(dict.fromkeys(key for values in raw for key in values))
    chosen = dict(mapping) if mapping else recognise_mapping(columns)
    kind = kind or recognise_kind(path.name, chosen, raw)
    missing = missing_fields(kind, chosen)
    results = [r if isinstance(r, RowError) or missing else convert(r, kind, chosen) for r in rows]
    items, held = [], {}
    for item in (r for r in results if isinstance(r, Item)):
        _, found = look(item, id_column=chosen.get("external_id", ""))
        if kinds := kinds_of(found):
            held[item.row] = kinds
        items.append(masked(item, found) if kinds else item)
    return Preview(
        columns=columns,
        kind=kind,
        mapping=chosen,
        missing=missing,
        encoding=encoding,
        items=items,
        errors=[_clean(r) for r in results if isinstance(r, RowError)],
        raw=raw,
        held=held,
    )


def check_request(session: Session, config: ImportConfig, path: Path) -> Preview:
    """Refuse before a job is queued what could never succeed: bad file, missing column, taken name, unknown kind or split."""
    if config.kind and config.kind not in KINDS:
        raise UserError("data.kind_unknown", kind=config.kind, known=", ".join(KINDS))
    if config.split and config.split not in {s.value for s in Split}:
        raise UserError("data.split_unknown", split=config.split, known=", ".join(s.value for s in Split))
    if session.scalar(select(t.Dataset.id).where(t.Dataset.name == config.dataset)) is not None:
        raise Conflicting("data.name_taken", name=config.dataset)
    shown = preview(path, kind=config.kind, mapping=config.mapping or None, encoding=config.encoding)
    unknown = [c for c in shown.mapping.values() if c not in shown.columns]
    if unknown:
        raise UserError("data.column_unknown", column=", ".join(unknown), known=", ".join(shown.columns))
    if shown.missing:
        raise UserError("data.column_missing", field=", ".join(shown.missing), columns=", ".join(shown.columns))
    return shown


def import_file(
    path: Path,
    config: ImportConfig,
    *,
    folder: Path,
    card_path: str,
    created_by: int | None,
    job_id: int | None,
    on_progress: Progress = lambda phase, done, total: None,
) -> tuple[int, Report]:
    """Import `path` as dataset `config.dataset`; returns the dataset's id and the report.

    Rows that seem to identify a person wait in quarantine (or get surrogates) before anything else can see them.
    Writes DATA_CARD.md and rejected.jsonl into `folder`. Raises UserError when the file, a column or the name is wrong, or
    when not a single row can be used; then nothing at all was stored.
    """
    with read_session() as session:
        shown = check_request(session, config, path)
    report = Report(kind=shown.kind, mapping=shown.mapping, encoding=shown.encoding, file_sha256=_sha256(path))
    screen = open_screen(config.dataset, shown.mapping.get("external_id", ""))
    items, errors = _read(path, shown, report, screen, on_progress)
    items = _merge_exact(items, report)
    items = _refuse_leaks(items, errors, config, report)
    near = near_duplicates(
        [i.text for i in items], [i.language for i in items], on_progress=lambda d, n: on_progress("near_duplicates", d, n)
    )
    _split(items, near.groups, config)
    waiting = [item for item in items if id(item) in screen.held]
    kept = [item for item in items if id(item) not in screen.held]
    _summarise(kept, errors, [(items[a].row, items[b].row, s) for a, b, s in near.pairs], report)
    screen.tell(report, len(waiting))
    folder.mkdir(parents=True, exist_ok=True)
    _write_rejected(folder / "rejected.jsonl", errors)
    if not items:
        first = errors[0].code if errors else "row_missing"
        raise UserError(
            "data.nothing_usable", path=path.name, rows=report.num_rows, reason=first, line=errors[0].line or errors[0].row if errors else 0
        )
    on_progress("storing", 0, len(kept))
    with write_session() as session:
        dataset = t.Dataset(
            name=config.dataset,
            kind=shown.kind,
            source=config.source,
            licence=config.licence,
            created_by=created_by,
            job_id=job_id,
            card_path=card_path,
        )
        session.add(dataset)
        session.flush()
        store_items(session, dataset, kept, report, job_id, created_by)
        hold(session, dataset, [(item, *screen.held[id(item)]) for item in waiting], job_id)
        dataset.report = asdict(report)
        dataset_id, digest = dataset.id, dataset.content_hash
    write_card(folder / "DATA_CARD.md", config, report, digest, file_name=path.name)
    return dataset_id, report


def _clean(error: RowError) -> RowError:
    return replace(error, params=clean_params(error.params))


def _read(path: Path, shown: Preview, report: Report, screen: Screen, on_progress: Progress) -> tuple[list[Item], list[RowError]]:
    items: list[Item] = []
    errors: list[RowError] = []
    for row in readers.read_rows(path, shown.encoding):
        report.num_rows += 1
        result = row if isinstance(row, RowError) else convert(row, shown.kind, shown.mapping)
        if isinstance(result, RowError):
            errors.append(_clean(result))
        else:
            items.append(screen.passed(result))
        if report.num_rows % 1000 == 0:
            on_progress("reading", report.num_rows, 0)
    return items, errors


def _merge_exact(items: list[Item], report: Report) -> list[Item]:
    """Rows with the same prompt become one sample; their completions, pairs and judgements are all kept."""
    first: dict[str, Item] = {}
    kept: list[Item] = []
    for item in items:
        digest = item.digest
        earlier = first.get(digest)
        if earlier is None:
            first[digest] = item
            kept.append(item)
            continue
        report.num_exact_duplicates += 1
        carries_more = item.completions or item.pair or item.judgement
        if carries_more:
            item.meta["same_prompt_as_row"] = earlier.row
            kept.append(item)
    return kept


def _refuse_leaks(items: list[Item], errors: list[RowError], config: ImportConfig, report: Report) -> list[Item]:
    """A prompt that some dataset already holds for evaluation must not come in for training."""
    with read_session() as session:
        evaluated = held_out(session)
    asked = Split(config.split) if config.split else None
    kept = []
    for item in items:
        wanted = item.split or asked
        where = evaluated.get(item.digest)
        if where is not None and (wanted is None or wanted in TRAINING_SPLITS):
            errors.append(RowError(item.row, item.line, "row_leak", {"dataset": where}))
        else:
            kept.append(item)
    report.num_leaks = len(items) - len(kept)
    return kept


def _split(items: list[Item], groups: list[int], config: ImportConfig) -> None:
    digests = [item.digest for item in items]
    by_digest: dict[str, int] = {}
    for i, digest in enumerate(digests):  # the same prompt with several answers is several items
        groups[i] = groups[by_digest.setdefault(digest, i)]
    # a group's fate hangs on its member with the smallest digest, not on the one that happens to stand first in the file
    leaders: dict[int, int] = {}
    for i, group in enumerate(groups):
        if digests[i] < digests[leaders.setdefault(group, i)]:
            leaders[group] = i
    for item in items:
        item.risk = item.risk or prompt_risk(item.messages, item.language)
    strata = [f"{i.language}/{i.risk}/{i.category}" for i in items]
    free = assign(digests, strata, [leaders[group] for group in groups], config.seed)
    for item, split in zip(items, free, strict=True):
        item.split = item.split or (Split(config.split) if config.split else split)


def _summarise(items: list[Item], errors: list[RowError], near: list[tuple[int, int, float]], report: Report) -> None:
    """Fill in the report; `near` holds (row, row it is like, similarity)."""
    errors.sort(key=lambda e: e.row)
    report.num_imported = len(items)
    report.num_rejected = len(errors)
    report.rejected_by_reason = dict(Counter(e.code for e in errors))
    report.errors = [asdict(e) for e in errors[:MOST_ERRORS]]
    report.num_near_duplicates = len(near)
    report.near_duplicates = [{"row": a, "like_row": b, "similarity": s} for a, b, s in near[:MOST_ERRORS]]
    report.splits = dict(Counter(str(i.split) for i in items))
    report.languages = dict(Counter(str(i.language) for i in items))
    report.risks = dict(Counter(str(i.risk) for i in items))


def _write_rejected(path: Path, errors: list[RowError]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for error in errors:
            file.write(json.dumps(asdict(error), ensure_ascii=False) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
