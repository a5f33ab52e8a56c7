"""Build a search index from a folder of documents, or update one with what changed there, and let the new version answer.

Read -> questions -> index in a scratch folder -> keep the questions that find their chunk -> open it once, as a search would ->
rename into place -> activate, in this order: whatever breaks on the way, the version that answers now goes on answering. What was
read, written and encoded stays in the run folder, so a second start goes on where the first one died; a second start of a job
that was done finds its own version and builds nothing twice. Files that cannot be read are named in the result.

    python -m training.index --run-dir DIR        (config.json: core.jobs.configs_retrieval.IndexConfig)
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.errors import Conflicting, NotFound, UserError
from core.home import Home
from core.jobs.configs_retrieval import IndexConfig
from core.retrieval import index_versions as versions
from core.retrieval.chunk import Chunk
from core.retrieval.dense import Encoder
from core.retrieval.documents import find_files, other_files
from core.retrieval.encoders import open_encoder
from core.retrieval.entries import searchable
from core.retrieval.index import Index, build_index, load_index, update_index
from core.retrieval.prune import prune, read_stats
from core.retrieval.question_filter import EntryForm, finding_their_own, with_passages, with_words
from core.settings import ROOT
from training.index_changes import Changes, changes_of
from training.index_questions import QuestionFigures, Writer, check_writer, entry_form, key_of, words_of, write_questions, writer_named
from training.index_stage import Chunking, Stage, settings_of
from training.index_vectors import KeptVectors
from training.run import Run, main

DEMO_FOLDER = ROOT / "assets" / "demo" / "guidelines"
NAME = re.compile(r"^\w[\w.-]{0,99}$")
#: Progress is written (and "stop" looked for) every so many files or questions.
STRIDE = 20


def run_index(run: Run) -> None:
    """Build or update, publish, activate."""
    config = run.config(IndexConfig)
    if not NAME.match(config.name):
        raise UserError("ask.bad_index_name", name=config.name)
    if config.chunk_overlap >= config.chunk_tokens:
        raise UserError("ask.bad_chunking", overlap=config.chunk_overlap, tokens=config.chunk_tokens)
    done = run.dir / "version.txt"
    if done.is_file() and _is_intact(config.name, int(done.read_text())):
        version = int(done.read_text())  # an attempt that was killed between the rename and the switch
        _finish(run, config, version, versions.install(config.name, version), _base_of(config.name, version))
        clean(run, config.name)
        return
    maker = _Job(run, config)
    try:
        made = maker.update() if config.action == "update" else maker.build()
    finally:
        maker.stage.close()
    if made is not None:
        _finish(run, config, *made)
    clean(run, config.name)


class _Job:
    """One attempt: what it works with, and its two ways."""

    def __init__(self, run: Run, config: IndexConfig) -> None:
        self.run, self.config = run, config
        self.scratch = scratch_of(run, config.name)
        self.base: Index | None = None
        self.base_version: int | None = None
        if config.action == "update":
            active = versions.active_version(config.name)
            if active is None:
                raise NotFound("index.nothing_to_update", name=config.name)
            self.base_version, self.base = active.version, load_index(run.home.resolve(active.path))
        known = self.base.manifest if self.base else {}
        self.folder = find_folder(run.home, config.folder or str(known.get("folder", "")))
        self.encoder = self._encoder(self.base.dense_model.name if self.base and self.base.dense_model else config.encoder)
        self.entry_form: EntryForm = "alone"
        self.writer = self._writer(config.writer or str(known.get("questions", {}).get("writer", "")))
        self.chunking = settings_of(known) if self.base else _chunking(config)
        #: what was compared with one version is worth nothing beside another
        self.stage_folder = run.dir / f"stage-{self.base_version or 0}"
        self.stage = Stage(self.stage_folder, self.folder)

    def build(self) -> tuple[int, Path, None]:
        """Everything anew. Returns the version, its folder and no base."""
        self._read(find_files(self.folder), leaving=())
        if not len(self.stage):
            raise UserError("ask.nothing_readable", path=self.folder, num=len(self.stage.problems()))
        questions = self._questions()
        version = self._claim()
        about = self._about(version, {"lineage": version}, QuestionFigures(), self.stage.problems())
        build_index(
            self._progressing(self.stage.chunks()),
            self.scratch,
            about,
            encoder=self.encoder,
            marks=self.stage.marks(),
            sources=self.stage.sources(),
        )
        return version, self._install(version, self._with_questions(questions, lambda position: position)), None

    def update(self) -> tuple[int, Path, int | None] | None:
        """Only what changed. None when nothing did."""
        base = self.base
        if base is None:
            raise AssertionError("an update has a base")
        changes = changes_of(base, self.folder)
        dropped = self._pruned(base)
        self._read(changes.to_read, leaving=changes.leaving)
        if not len(self.stage) and len(changes.deleted) == len(base.documents):
            raise UserError("index.all_gone", path=self.folder, num=len(base.documents))
        unreadable = {problem["file"] for problem in self.stage.problems()}
        removed = [file for file in changes.leaving if file not in unreadable or file in changes.deleted]
        if not removed and not len(self.stage) and not dropped:
            result = {"index": self.config.name, "version": self.base_version, "changed": 0, "unreadable": self.stage.problems()}
            self.run.result(**result)
            return None
        questions = self._questions()
        version = self._claim()
        figures = _figures(base.manifest)
        about = self._about(version, {"changes": self._counts(changes, unreadable, dropped)}, figures, self._all_problems(base, changes))
        update_index(
            base,
            self.scratch,
            remove=removed,
            chunks=self._progressing(self.stage.chunks()),
            about=about,
            encoder=self.encoder,
            remove_entries=dropped,
            marks=self.stage.marks(),
            sources=self.stage.sources(),
        )
        first_new = len(base.store.chunks)
        folder = self._with_questions(questions, lambda position: first_new + position)
        active = versions.active_version(self.config.name)
        if active is None or active.version != self.base_version:
            raise Conflicting("index.base_changed", name=self.config.name, before=self.base_version, now=active.version if active else "-")
        return version, self._install(version, folder), self.base_version

    # --- steps ----------------------------------------------------------------------------------------------------------

    def _read(self, files: Sequence[Path], leaving: Sequence[str]) -> None:
        def on_file(done: int) -> None:
            if done % STRIDE == 0 or done == len(files):
                self._step("read", done, len(files))

        self.stage.read(files, self.chunking, self.base, leaving, on_file)

    def _questions(self) -> dict[int, list[str]]:
        """Questions by position in the stage."""
        if self.writer is None:
            return {}
        num, path = self.config.num_questions, self.stage_folder / "questions.jsonl"
        passages = map(searchable, self.stage.chunks())
        written = write_questions(self.writer, passages, num, path, lambda n: self._step("questions", n, len(self.stage)))
        by_position = ((number, written[key_of(searchable(chunk))]) for number, chunk in enumerate(self.stage.chunks()))
        return {number: questions for number, questions in by_position if questions}

    def _with_questions(self, questions: Mapping[int, list[str]], number_of: Callable[[int], int]) -> Path:
        """The scratch folder, or one beside it that holds the questions too: those that find their chunk, or each chunk's at its side."""
        num_written = sum(map(len, questions.values()))
        if not num_written or self.writer is None:
            return self.scratch
        built = load_index(self.scratch)
        asked = {number_of(position): texts for position, texts in questions.items()}

        def on_batch(done: int) -> None:
            self._step("check_questions", done, num_written)

        if self.entry_form == "alone":
            kept = finding_their_own(built, asked, self.config.question_depth, self.encoder, on_batch)
            num_kept = sum(map(len, kept.values()))
        else:
            passages = {number: searchable(built.chunk(number)) for number in asked}
            words = words_of(self.writer) if self.entry_form == "with_words" else None
            kept = with_words(asked, words, passages) if words else with_passages(asked, passages)
            num_kept = num_written
        new = QuestionFigures(self.writer.name, self.config.num_questions, num_written, num_kept, self.config.question_depth)
        target = self.scratch.with_name(f"{self.scratch.name}-questions")
        figures = _figures(built.manifest).plus(new).as_manifest()
        update_index(built, target, more_questions=kept, encoder=self.encoder, about={"questions": figures})
        return target

    def _install(self, version: int, folder: Path) -> Path:
        return versions.install(self.config.name, version, folder, based_on=self.base_version)

    def _claim(self) -> int:
        self.scratch.parent.mkdir(parents=True, exist_ok=True)
        self._step("index", 0, max(1, len(self.stage)))
        return versions.claim(self.config.name, self.run.job_id or None, self.run.dir / "version.txt")

    def _pruned(self, base: Index) -> list[int]:
        """Entries that the stats speak against. Raises UserError("index.bad_stats" / "index.stats_of_other")."""
        if not self.config.prune_stats:
            return []
        path = self.run.home.root / Path(self.config.prune_stats).expanduser()
        stats = read_stats(path)
        lineage = {v.version: v.manifest.get("lineage") for v in versions.listing(self.config.name)}.get(stats.version)
        if stats.index != self.config.name or lineage != base.manifest["lineage"]:
            wanted, given = f"{self.config.name} v{self.base_version}", f"{stats.index} v{stats.version}"
            raise UserError("index.stats_of_other", path=path, wanted=wanted, given=given)
        pruned = prune(base.store.living_questions(), stats)
        return [*pruned.never_hit, *pruned.harmful]

    # --- words for the manifest -----------------------------------------------------------------------------------------

    def _about(self, version: int, more: dict[str, Any], figures: QuestionFigures, problems: list[dict[str, str]]) -> dict[str, Any]:
        documents = self.stage.documents
        before = self.base.manifest["repeated"] if self.base else {"exact": 0, "near": 0}
        others = [{"file": p.file, "code": p.code} for p in other_files(self.folder)]
        return {
            "name": self.config.name,
            "version": version,
            "folder": self._stored_folder(),
            "chunking": asdict(self.chunking),
            "repeated": {
                "exact": before["exact"] + sum(d.num_exact for d in documents),
                "near": before["near"] + sum(d.num_near for d in documents),
            },
            "questions": figures.as_manifest(),
            "unreadable": [*problems, *others],
            **more,
        }

    def _all_problems(self, base: Index, changes: Changes) -> list[dict[str, str]]:
        """Of files that cannot be read (they are tried each time); what was indexed of one before is kept."""
        kept = set(base.documents) - set(changes.deleted)
        return [{**p, "kept": "yes"} if p["file"] in kept else p for p in self.stage.problems()]

    def _counts(self, changes: Changes, unreadable: set[str], dropped: Sequence[int]) -> dict[str, int]:
        changed = [file for file in changes.changed if file not in unreadable]
        return {
            "added": len([file for file in changes.added if file not in unreadable]),
            "changed": len(changed),
            "deleted": len(changes.deleted),
            "pruned": len(dropped),
        }

    def _stored_folder(self) -> str:
        """Relative to the data folder where it lies in it, "" for the demo guidelines: the data folder can be moved."""
        if self.folder == DEMO_FOLDER:
            return ""
        root = self.run.home.root.resolve()
        return str(self.folder.resolve().relative_to(root)) if self.folder.resolve().is_relative_to(root) else str(self.folder.resolve())

    # --- parts ----------------------------------------------------------------------------------------------------------

    def _encoder(self, name: str) -> Encoder | None:
        if not name:
            return None
        encoder: Encoder = open_encoder(name, place="here")
        if self.base and self.base.dense_model:
            self.base.dense_model.require(encoder)
        return KeptVectors(encoder, self.run.dir / "vectors", lambda done: self._step("encode", done, done))

    def _writer(self, name: str) -> Writer | None:
        if not name or not self.config.num_questions:
            return None
        writer = writer_named(name)
        self.entry_form = entry_form(name)
        check_writer(writer)
        return writer

    def _progressing(self, items: Iterator[Chunk]) -> Iterator[Chunk]:
        for done, item in enumerate(items, start=1):
            if done % 500 == 0:
                self._step("index", done, len(self.stage))
            yield item

    def _step(self, phase: str, done: int, total: int) -> None:
        """Everything so far is on disk: say how far it is, and leave if asked to."""
        self.run.progress(phase, done, total)
        self.run.leave_if_stopped()


def scratch_of(run: Run, name: str) -> Path:
    """Where this job builds: beside the versions, so that putting one in place is a rename."""
    return run.home.indexes / name / f".building-{run.dir.name}"


def clean(run: Run, name: str) -> None:
    """Remove what a restart would have needed."""
    scratch = scratch_of(run, name)
    for folder in (*run.dir.glob("stage-*"), run.dir / "vectors", *scratch.parent.glob(f"{scratch.name}*")):
        shutil.rmtree(folder, ignore_errors=True)


def find_folder(home: Home, wanted: str) -> Path:
    """The folder with the documents. Raises UserError when it is not there or holds nothing that we read."""
    folder = (home.root / Path(wanted).expanduser()) if wanted else DEMO_FOLDER
    if not folder.is_dir():
        raise UserError("ask.no_folder", path=folder)
    if not find_files(folder):
        raise UserError("ask.empty_folder", path=folder)
    return folder


def _finish(run: Run, config: IndexConfig, version: int, target: Path, based_on: int | None) -> None:
    """Switch, tidy, and say what came out."""
    manifest = load_index(target).manifest
    if config.activate:
        versions.activate(config.name, version, by=None, reason=f"job {run.job_id}" if run.job_id else "")
    removed = versions.remove_old(run.home, config.name)
    run.progress("index", manifest["num_chunks"], manifest["num_chunks"])
    shown = ("num_documents", "num_chunks", "num_entries", "num_syn", "repeated", "questions", "encoder", "dense", "unreadable")
    run.result(
        index=config.name,
        version=version,
        based_on=based_on,
        is_active=config.activate,
        path=run.home.relative(target),
        removed_versions=removed,
        changes=manifest.get("changes") if based_on else None,
        **{name: manifest[name] for name in shown},
    )


def _is_intact(name: str, version: int) -> bool:
    try:
        load_index(versions.folder_of(name, version))
    except UserError:
        return False
    return True


def _base_of(name: str, version: int) -> int | None:
    return next((v.based_on for v in versions.listing(name) if v.version == version), None)


def _chunking(config: IndexConfig) -> Chunking:
    if config.chunk_unit == "character":
        return Chunking("character", config.chunk_characters, 0, config.similarity)
    return Chunking("token", config.chunk_tokens, config.chunk_overlap, config.similarity)


def _figures(manifest: dict[str, Any]) -> QuestionFigures:
    return QuestionFigures(**{k: v for k, v in manifest["questions"].items() if k != "share_kept"})


if __name__ == "__main__":
    main(run_index)
