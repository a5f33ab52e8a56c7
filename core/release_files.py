"""A release package as files: what is in it, the manifest that names every byte, and checking that nothing was changed.

    v1.0-rl/
      adapter/                     the version's weights: PEFT adapter, value head, config.json
      base/                        base and tokenizer, only in a self-contained package
      config.json reward_rules.md rl_pipeline.md model_card.md teacher_judgements.jsonl
      evaluation_report.{md,json} rewards.csv kl_metrics.json teacher_usage.csv ...
      manifest.json                SHA-256 of every other file, identity of base, SFT adapter, tokenizer and chat template

The manifest is written in one canonical form and carries the hash of itself, so a byte flipped there is found as well. That
finds damage and careless edits; against somebody who writes a new manifest there is the audit chain, which holds the hash of
each manifest made or loaded here. Called by core.release.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import NotFound, UserError

FORMAT = 1
MANIFEST, ADAPTER, BASE = "manifest.json", "adapter", "base"
#: decide how text becomes tokens, beside tokenizer.json
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "vocab.txt", "spiece.model"),
)
#: may run code when they are opened, so a package never holds them
UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py", ".so", ".dll"})


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tokenizer_hash(folder: Path) -> str:
    """SHA-256 over names and contents of the tokenizer's files; of nothing at all: an empty string."""
    digest, found = hashlib.sha256(), False
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + b"\0" + bytes.fromhex(sha256_of(folder / name)))
            found = True
    return digest.hexdigest() if found else ""


def template_hash(folder: Path) -> str:
    """SHA-256 of the chat template, wherever transformers keeps it; empty when there is none."""
    if (folder / "chat_template.jinja").is_file():
        return sha256_of(folder / "chat_template.jinja")
    try:
        template = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest() if template else ""


def write_manifest(folder: Path, about: dict[str, Any]) -> str:
    """Hash everything under `folder` and write the manifest last; returns the SHA-256 of the manifest's bytes.

    Raises UserError("release.unsafe_file") for a file that could run code when it is opened.
    """
    files: dict[str, dict[str, Any]] = {}
    for path in entries(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in UNSAFE_SUFFIXES:
            raise UserError("release.unsafe_file", name=name)
        files[name] = {"sha256": sha256_of(path), "size": path.stat().st_size}
    manifest = {"format": FORMAT, **about, "files": files}
    data = _text({**manifest, "digest": _digest(manifest)}).encode()
    scratch = folder / f".{MANIFEST}.{os.getpid()}"
    with scratch.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    scratch.replace(folder / MANIFEST)
    return hashlib.sha256(data).hexdigest()


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a package of which every byte is as it was written.

    Raises NotFound("release.no_package"), UserError with one of release.manifest_changed, .newer_format, .file_missing,
    .file_added, .file_changed, .unsafe_file, .link: the first thing that is wrong.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise NotFound("release.no_package", path=folder) from error
    manifest = _parsed(data, folder)
    expected: dict[str, dict[str, Any]] = manifest["files"]
    found = {p.relative_to(folder).as_posix(): p for p in entries(folder)}
    if missing := sorted(expected.keys() - found.keys()):
        raise UserError("release.file_missing", name=missing[0], num=len(missing))
    if added := sorted(found.keys() - expected.keys()):
        raise UserError("release.file_added", name=added[0], num=len(added))
    for name, path in found.items():
        if path.suffix.lower() in UNSAFE_SUFFIXES:
            raise UserError("release.unsafe_file", name=name)
        if path.stat().st_size != expected[name]["size"] or sha256_of(path) != expected[name]["sha256"]:
            raise UserError("release.file_changed", name=name)
    return manifest


def manifest_hash(folder: Path) -> str:
    """SHA-256 of the manifest's bytes."""
    return sha256_of(folder / MANIFEST)


def entries(folder: Path) -> Iterator[Path]:
    """Every file of a package but the manifest, in a fixed order. Raises UserError("release.link") for what is not a plain file."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UserError("release.link", name=path.relative_to(folder).as_posix())
        if path.is_file() and path != folder / MANIFEST:
            yield path


def copy_tree(source: Path, target: Path) -> None:
    """Copy all files of a folder; links become the files they point to (a hub cache is made of links)."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _parsed(data: bytes, folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
        digest = manifest.pop("digest")
        is_whole = digest == _digest(manifest) and data == _text({**manifest, "digest": digest}).encode()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError("release.manifest_changed", path=folder) from error
    if not is_whole:
        raise UserError("release.manifest_changed", path=folder)
    if manifest.get("format") != FORMAT:
        raise UserError("release.newer_format", format=manifest.get("format"), known=FORMAT)
    return dict(manifest)


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(_text(manifest).encode()).hexdigest()


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
