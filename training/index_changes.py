"""What changed in a folder since an index was made from it, by the hash of each file. Called by training.index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.retrieval.documents import find_files
from core.retrieval.index import Index
from training.index_stage import file_hash


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of documents, in order. `again` did not change, but what they left out stood in a document that goes."""

    added: list[str]
    changed: list[str]
    deleted: list[str]
    again: list[str]
    folder: Path

    @property
    def leaving(self) -> list[str]:
        """Documents whose present chunks leave the index (some come back)."""
        return [*self.changed, *self.again, *self.deleted]

    @property
    def to_read(self) -> list[Path]:
        return [self.folder / name for name in sorted([*self.added, *self.changed, *self.again])]


def changes_of(base: Index, folder: Path) -> Changes:
    """Compare `folder` with the documents of `base`; a file that cannot be hashed counts as changed."""
    now = {path.relative_to(folder).as_posix(): path for path in find_files(folder)}
    before = base.documents
    added = [name for name in now if name not in before]
    changed = [name for name, path in now.items() if name in before and file_hash(path) != before[name].hash]
    deleted = [name for name in before if name not in now]
    going = {*changed, *deleted}
    again = [name for name, row in before.items() if name in now and name not in going and going & set(row.repeats)]
    return Changes(added, changed, deleted, again, folder)
