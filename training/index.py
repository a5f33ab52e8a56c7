"""Build a search index from a folder of guideline documents, and make it the active version of its name.

Read -> chunk -> index in a scratch folder -> open it once, as a search would -> rename into place -> activate, in this
order: whatever breaks on the way, the version that answers now goes on answering. A second start of the same job finds its
own version and builds nothing twice. Files that cannot be read are named in the result. The last two versions are kept.

    python -m training.index --run-dir DIR        (config.json: core.jobs.configs.IndexConfig)
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from sqlalchemy import func, select, update

from core.errors import UserError
from core.home import Home
from core.jobs.configs import IndexConfig
from core.retrieval.chunk import Chunk, Document, chunk_document
from core.retrieval.documents import Problem, find_files, read_folder
from core.retrieval.index import build_index, load_index, publish
from core.settings import ROOT
from db import tables as t
from db.engine import read_session, write_session
from training.run import Run, main

DEMO_FOLDER = ROOT / "assets" / "demo" / "guidelines"
NAME = re.compile(r"^\w[\w.-]{0,99}$")
KEPT_VERSIONS = 2
#: Progress is written (and "stop" looked for) every so many files.
STRIDE = 20


def run_index(run: Run) -> None:
    """Build, publish, activate."""
    config = run.config(IndexConfig)
    if not NAME.match(config.name):
        raise UserError("ask.bad_index_name", name=config.name)
    if config.chunk_overlap >= config.chunk_tokens:
        raise UserError("ask.bad_chunking", overlap=config.chunk_overlap, tokens=config.chunk_tokens)
    version = choose_version(run, config.name)
    target = run.home.indexes / config.name / f"v{version:06d}"
    if not is_intact(target):
        folder = find_folder(run.home, config.folder)
        chunks, problems = read_chunks(run, folder, config)
        about = {"name": config.name, "version": version, "chunk_tokens": config.chunk_tokens, "chunk_overlap": config.chunk_overlap}
        scratch = target.with_name(f".building-{run.job_id}")
        run.progress("index", 0, len(chunks))
        build_index(chunks, scratch, {**about, "unreadable": [vars_of(p) for p in problems]})
        load_index(scratch)
        shutil.rmtree(target, ignore_errors=True)  # an earlier attempt of this very job, broken on the way
        publish(scratch, target)
    manifest = load_index(target).manifest
    activate(run, config.name, version, target)
    removed = remove_old(run.home, config.name)
    run.progress("index", manifest["num_chunks"], manifest["num_chunks"])
    run.result(
        index=config.name,
        version=version,
        num_documents=manifest["num_documents"],
        num_chunks=manifest["num_chunks"],
        unreadable=manifest["unreadable"],
        path=run.home.relative(target),
        removed_versions=removed,
    )


def choose_version(run: Run, name: str) -> int:
    """The number this job builds: its own from an earlier attempt, else the next one (rows and folders both count)."""
    with read_session() as session:
        mine = t.SearchIndex.job_id == (run.job_id or None)
        own = session.scalar(select(t.SearchIndex.version).where(t.SearchIndex.name == name, mine)) if run.job_id else None
        newest = session.scalar(select(func.max(t.SearchIndex.version)).where(t.SearchIndex.name == name)) or 0
    note = run.dir / "version.txt"  # an attempt that was killed between publishing and activating
    if own is None and note.is_file():
        own = int(note.read_text())
    folders = [int(p.name[1:]) for p in (run.home.indexes / name).glob("v[0-9]*")]
    version = own or max([newest, *folders]) + 1
    note.write_text(str(version))
    return version


def is_intact(target: Path) -> bool:
    """Has an earlier attempt of this job already published this version?"""
    try:
        load_index(target)
    except UserError:
        return False
    return True


def find_folder(home: Home, wanted: str) -> Path:
    """The folder with the documents. Raises UserError when it is not there or holds nothing that we read."""
    folder = (home.root / Path(wanted).expanduser()) if wanted else DEMO_FOLDER
    if not folder.is_dir():
        raise UserError("ask.no_folder", path=folder)
    if not find_files(folder):
        raise UserError("ask.empty_folder", path=folder)
    return folder


def read_chunks(run: Run, folder: Path, config: IndexConfig) -> tuple[list[Chunk], list[Problem]]:
    """Chunks of every readable document and the problems of the others. Raises UserError when none is readable."""
    total = len(find_files(folder))
    chunks: list[Chunk] = []
    problems: list[Problem] = []
    for done, item in enumerate(read_folder(folder), start=1):
        if isinstance(item, Document):
            chunks += chunk_document(item, config.chunk_tokens, config.chunk_overlap)
        else:
            problems.append(item)
            print(f"left out {item.file}: {item.code}", flush=True)
        if done % STRIDE == 0 or done == total:
            run.progress("read", done, total)
            run.leave_if_stopped()  # nothing is lost by leaving: reading starts anew
    if not chunks:
        raise UserError("ask.nothing_readable", path=folder, num=len(problems))
    return chunks, problems


def activate(run: Run, name: str, version: int, target: Path) -> None:
    """Register the version and switch to it in one transaction."""
    manifest = load_index(target).manifest
    with write_session() as session:
        row = session.scalar(select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.version == version))
        if row is None:
            row = t.SearchIndex(name=name, version=version, path=run.home.relative(target), job_id=run.job_id or None)
            session.add(row)
        row.num_documents, row.num_chunks, row.manifest = manifest["num_documents"], manifest["num_chunks"], manifest
        session.execute(update(t.SearchIndex).where(t.SearchIndex.name == name).values(is_active=False))
        session.flush()
        row.is_active = True


def remove_old(home: Home, name: str) -> list[int]:
    """Delete the folders of all but the newest versions; their rows stay, because questions refer to them."""
    with read_session() as session:
        query = select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.is_active.is_(False))
        old = [row for row in session.scalars(query.order_by(t.SearchIndex.version.desc())) if row.path][KEPT_VERSIONS - 1 :]
    for row in old:
        shutil.rmtree(home.resolve(row.path), ignore_errors=True)
    with write_session() as session:
        session.execute(update(t.SearchIndex).where(t.SearchIndex.id.in_([row.id for row in old])).values(path=""))
    return [row.version for row in old]


def vars_of(problem: Problem) -> dict[str, str]:
    """A problem as stored in the manifest; its sentence is made from the code when shown."""
    return {"file": problem.file, "code": problem.code, **{k: str(v) for k, v in problem.params.items()}}


if __name__ == "__main__":
    main(run_index)
