"""Bringing the entries of a version into a search engine, proving that it finds the same, and keeping it in step with updates.

What leaves is an entry's number, its hashed tokens and its vector, through the privacy door. Batches are put in an order that
never changes, and `batches_done` of the notes says how many are there, so that a move that was killed goes on; putting a row twice
changes nothing. An engine answers people only after its rows were counted and its ten best compared with those of the version's own
channels. Called by training.index_move, core.retrieval.index_versions and the tests.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.privacy_doors import outside_passages
from core.retrieval.engines.base import BATCH, Engine, Found, Row, Spec
from core.retrieval.engines.bm25 import mean_lengths, row_of
from core.retrieval.engines.choose import engine_of
from core.retrieval.engines.remote import Place, Remote, remote_of
from core.retrieval.entries import SYN, searchable
from core.retrieval.index import Index, load_index
from core.retrieval.versions_on_disk import read_manifest, seal
from core.settings import Settings

log = logging.getLogger("consilium.engines")
#: entries whose texts set the yardstick of lengths; the mean of so many is off by less than a percent
MEASURED = 50_000
#: sample questions compared before a switch, and how deep
SAMPLES, DEPTH = 100, 10
#: scores that differ by less are the same, in another order of summing
TOLERANCE = 1e-4
#: shared share of the ten best vectors below which a move is refused: two approximate indexes do not agree on all of them
MIN_OVERLAP = 0.9
#: share of sample questions that must find the same ten where parts of passages were held back
MIN_EQUAL = 0.95
#: scores that count as the same then: what stayed here is missing from an engine's own counts (OpenSearch) too
HELD_TOLERANCE = 1e-2
TITLE_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Compared:
    """What the engine finds beside the version's own channels. `scale` is own score / engine score; `overlap` None without vectors."""

    num: int
    num_equal: int
    scale: float
    overlap: float | None
    different: tuple[str, ...]
    #: entries of which the privacy door let only a part leave; they are left out of the comparison
    num_held: int = 0

    @property
    def is_same(self) -> bool:
        """Every question, as long as all of every passage left; an engine that counts its own tokens notices parts that did not."""
        wanted = self.num if not self.num_held else MIN_EQUAL * self.num
        return self.num_equal >= wanted and (self.overlap is None or self.overlap >= MIN_OVERLAP)


def new_place(kind: str, index: Index, version: int) -> Place:
    """A place of its own for a version, not made yet. The name of the index stays here."""
    salt = secrets.token_bytes(16)
    numbers = np.flatnonzero(index.is_live)
    some = numbers[:: max(1, len(numbers) // MEASURED)]
    dimension = index.dense_model.dimension if index.dense_model else None
    spec = Spec(index.num_entries, dimension, mean_lengths(text_of(index, int(n)) for n in some))
    return Place(kind, f"consilium_{salt.hex()[:12]}_v{version}", salt, spec)


def text_of(index: Index, number: int) -> str:
    """What the lexical channel holds of an entry (core.retrieval.index_build)."""
    row = index.store.entries[number]
    return index.entry(number).text if row["kind"] == SYN else searchable(index.chunk(int(row["parent"])))


def batches(index: Index, place: Place, *, at_least: int = 0, on_held: Callable[[list[int]], None] | None = None) -> Iterator[list[Row]]:
    """The living entries from number `at_least` on as rows, always in the same order. `on_held` hears of those that do not leave whole."""
    for numbers, vectors in _blocks(index, at_least):
        texts = [text_of(index, n) for n in numbers]
        allowed = outside_passages(texts)
        rows = [row_of(n, text, place.salt) for n, text in zip(numbers, allowed, strict=True)]
        is_whole = np.array([a == b for a, b in zip(texts, allowed, strict=True)], np.float32)
        if on_held is not None:
            on_held([n for n, one in zip(numbers, is_whole, strict=True) if not one])
        if vectors is not None:  # the vector of a text that may not leave stays too: a zero is equally far from everything
            rows = [replace(row, vector=v) for row, v in zip(rows, vectors * is_whole[:, None], strict=True)]
        yield rows


def num_batches(index: Index) -> int:
    """How many `batches` there will be, about: inverted lists end in short ones."""
    return -(-index.num_entries // BATCH)


def put_all(index: Index, engine: Engine, place: Place, notes: Path, on_batch: Callable[[int], None]) -> None:
    """Create the collection and put every row, from where `notes` says on. Raises EngineDown."""
    engine.create(place.collection, place.spec)
    done = int(json.loads(notes.read_text())["batches_done"]) if notes.is_file() else 0
    held = set(json.loads(notes.read_text())["held"]) if notes.is_file() else set()
    for rows in islice(batches(index, place, on_held=held.update), done, None):
        engine.put(place.collection, place.spec, rows)
        done += 1
        note(notes, place, done, held)
        on_batch(done)
    engine.settle(place.collection)


def note(path: Path, place: Place, batches_done: int, held: Iterable[int] = ()) -> None:
    """Write down how far a move is, and which entries did not leave whole."""
    scratch = path.with_suffix(".writing")
    scratch.write_text(json.dumps({"place": place.as_manifest(), "batches_done": batches_done, "held": sorted(held)}))
    scratch.replace(path)


def check_count(index: Index, engine: Engine, place: Place, version: int) -> None:
    """Raises UserError("engines.count_differs")."""
    found = engine.count(place.collection)
    if found != index.num_entries:
        raise UserError("engines.count_differs", engine=engine.name, found=found, wanted=index.num_entries, version=version)


def compare(index: Index, engine: Engine, place: Place, num: int = SAMPLES, held: Collection[int] = frozenset()) -> Compared:
    """Ask sample questions in both. The best hits tell by what constant the engine's scores differ from ours; `held` do not count."""
    remote = remote_of(index, engine, replace(place, scale=1.0))
    questions = sample_questions(index, num)
    lists = [(index.entries_by_words(q, 3 * DEPTH), remote.lexical(q, 3 * DEPTH)) for q in questions]
    pairs = [([o for o in own if o[0] not in held], [f for f in found if f[0] not in held]) for own, found in lists]
    ratios = [own[0][1] / found[0][1] for own, found in pairs if own and found and found[0][1]]
    scale = float(np.median(ratios)) if ratios else 1.0
    tolerance = HELD_TOLERANCE if held else TOLERANCE
    is_equal = [same_ten(own, [(n, score * scale) for n, score in found], tolerance) for own, found in pairs]
    different = tuple(q for q, one in zip(questions, is_equal, strict=True) if not one)
    return Compared(len(questions), sum(is_equal), scale, _overlap(index, remote, num), different, len(held))


def same_ten(own: Found, found: Found, tolerance: float = TOLERANCE, depth: int = DEPTH) -> bool:
    """Are the best `depth` the same, with the same scores? Entries of the same score may change places, also over the edge."""
    if len(own[:depth]) != len(found[:depth]):
        return False
    if any(abs(a - b) > tolerance * abs(a) for (_, a), (_, b) in zip(own[:depth], found[:depth], strict=True)):
        return False
    edge = own[:depth][-1][1] * (1 + tolerance) if own else 0.0
    return {n for n, score in own[:depth] if score > edge} == {n for n, score in found[:depth] if score > edge}


def scaled(place: Place, compared: Compared) -> Place:
    """The place with the factor that was measured."""
    return replace(place, scale=compared.scale)


def sample_questions(index: Index, num: int) -> list[str]:
    """Pseudo-questions of the index as far as there are any, beginnings of its passages for the rest; the same ones each time."""
    chooser = np.random.default_rng(0)
    syn = np.array(index.store.living_questions())
    asked = chooser.choice(syn, min(len(syn), num // 2), replace=False).tolist() if len(syn) else list[int]()
    texts = [index.entry(int(n)).text.partition("\n")[0] for n in asked]
    passages = chooser.choice(index.numbers, min(len(index), num - len(texts)), replace=False)
    return texts + [index.chunk(int(n)).text[:TITLE_CHARACTERS] for n in passages]


def follow(base: Index, scratch: Path, settings: Settings) -> str:
    """Put what a finished, unpublished update in `scratch` has beyond `base` where the rows of `base` lie, and note the place in it.

    Rows that the update dropped stay: the base may answer again. Returns "" or the reason why the new version stands alone.
    """
    if not base.manifest.get("engine"):
        return ""
    place, index = Place.of(base.manifest["engine"]), load_index(scratch)
    try:
        engine = engine_of(settings, place.kind)
        for rows in batches(index, place, at_least=len(base.is_live)):
            engine.put(place.collection, place.spec, rows)
        engine.settle(place.collection)
    except UserError as error:
        log.warning("the new version is searched in the own index: %s", error)
        return f"{place.kind}: {error.params.get('reason', error.code)}"
    (scratch / "manifest.json").unlink()
    seal(scratch, {**index.manifest, "engine": place.as_manifest()})
    return ""


def forget(gone: Sequence[Path], kept: Sequence[Path], settings: Settings) -> None:
    """Tell engines what no version needs any more: whole collections, and rows of versions in `gone` that none of `kept` knows.

    Called before the folders go. An engine that does not answer keeps its rows, which no version sees.
    """
    for folder in gone:
        stored = read_manifest(folder).get("engine") if folder.is_dir() else None
        if not stored:
            continue
        place = Place.of(stored)
        try:
            engine = engine_of(settings, place.kind)
            sharing = [other for other in kept if (read_manifest(other).get("engine") or {}).get("collection") == place.collection]
            if sharing:
                _forget_rows(load_index(folder), [load_index(other) for other in sharing], engine, place)
            else:
                engine.drop(place.collection)
        except UserError as error:
            log.warning("%s keeps what is no longer needed: %s", place.collection, error)


def _forget_rows(index: Index, sharing: Sequence[Index], engine: Engine, place: Place) -> None:
    is_needed = np.zeros(max(len(index.is_live), *(len(i.is_live) for i in sharing)), bool)
    for other in sharing:
        is_needed[: len(other.is_live)] |= other.is_live
    dead = np.flatnonzero(index.is_live & ~is_needed[: len(index.is_live)]).tolist()
    for start in range(0, len(dead), BATCH):
        engine.delete(place.collection, dead[start : start + BATCH])


def _blocks(index: Index, at_least: int) -> Iterator[tuple[list[int], Any]]:
    """Numbers of living entries with their vectors, or None without a dense channel."""
    if index.dense_model is not None:
        for numbers, vectors in index.stored_vectors(at_least):
            yield numbers.tolist(), vectors
        return
    living = np.flatnonzero(index.is_live[at_least:]) + at_least
    for start in range(0, len(living), BATCH):
        yield living[start : start + BATCH].tolist(), None


def _overlap(index: Index, remote: Remote, num: int) -> float | None:
    """Shared share of the ten best by vector, over vectors that lie between two of the index's own."""
    if index.dense_model is None:
        return None
    vectors = next(_blocks(index, 0))[1]
    between = np.asarray(vectors[: num + 1], np.float32)
    between = between[:-1] + between[1:] if len(between) > 1 else between
    asked = [v / np.linalg.norm(v) for v in between if np.any(v)]
    if not asked:
        return 1.0
    shares = []
    for vector in asked:
        own = {n for n, _ in index.entries_by_vector(vector, DEPTH)}
        shares.append(len(own & {n for n, _ in remote.dense(vector, DEPTH)}) / max(1, len(own)))
    return float(np.mean(shares))
