"""Release packages: complete, verified byte by byte, loadable elsewhere, and answering as the version they were made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import release, release_files
from core.errors import NotFound, Unavailable, UserError
from core.home import Home, open_home
from core.models import folder_hash, get_version, register_version
from core.policy import load_version
from core.records import Message
from core.serving.versions import served_version
from core.settings import load_settings
from db import tables as t
from db.engine import read_session, write_session
from tests.databases import Databases
from tests.serving.tiny import OTHER_QUESTION, QUESTION


def add_tiny(home: Home, weights: Path) -> None:
    """tiny-base and an RL version on it, with an evaluation that knows a regression."""
    with write_session() as session:
        for name, folder, kind in (("tiny-base", "base", "base"), ("tiny-rl", "adapter", "rl")):
            path = home.models / kind / name
            shutil.copytree(weights / folder, path)
            base = None if kind == "base" else get_version(session, "tiny-base").id
            register_version(
                session, name=name, kind=kind, path=home.relative(path), base_version_id=base, is_toy=True, content_hash=folder_hash(path)
            )
        one = {"n": 40, "num_unscored": 0, "mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "parts": {}, "slices": []}
        lost = {"candidate": "tiny-rl", "n": 40, "difference": 0.1, "ci_low": 0.0, "ci_high": 0.2, "emergency_regressions": [77]}
        report = {"versions": {"tiny-base": one, "tiny-rl": one}, "baseline": "tiny-base", "comparisons": [lost]}
        session.add(t.Evaluation(name="e", report=report))
    rl = home.models / "rl" / "tiny-rl"
    (rl / "rewards.csv").write_text("rollout,score\n1,0.5\n")
    (rl / "kl_metrics.json").write_text('{"max_kl": 1.0}')
    (rl / "config.json").write_text("{}")
    with write_session() as session:  # config.json is one of the files that the hash covers
        get_version(session, "tiny-rl").content_hash = folder_hash(rl)


@pytest.fixture
def package(home: Home, tiny_weights: Path) -> Path:
    """A self-contained package of tiny-rl, inside the home."""
    add_tiny(home, tiny_weights)
    return release.build(home, "tiny-rl", "v1.0-rl", with_base=True)


@pytest.fixture
def other_home(home: Home, tmp_path: Path, databases: Databases) -> Callable[[], Iterator[Home]]:
    """Enter another data folder, empty; afterwards the first one is open again."""

    @contextmanager
    def enter() -> Iterator[Home]:
        root = tmp_path / "elsewhere"
        root.mkdir()
        databases.provide(root)
        yield open_home(load_settings({"CONSILIUM_HOME": str(root)}))
        open_home(home.settings)

    return enter  # type: ignore[return-value]


def answers(home: Home, name: str) -> list[str]:
    """Greedy and sampled answers, two seeds, two questions."""
    with read_session() as session:
        policy, adapter = load_version(home, session, get_version(session, name))
    found = []
    for temperature, seed in ((0.0, 0), (1.3, 1), (1.3, 2)):
        chats = [[Message("user", QUESTION)], [Message("user", OTHER_QUESTION)]]
        done = policy.generate(chats, adapter=adapter, temperature=temperature, max_new_tokens=40, seed=seed)
        found += [one.text for one in done]
    return found


def test_the_package_says_what_it_is(home: Home, package: Path) -> None:
    names = {p.relative_to(package).as_posix() for p in release_files.entries(package)}
    wanted = {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "config.json", "reward_rules.md", "rl_pipeline.md"}
    wanted |= {
        "evaluation_report.md",
        "evaluation_report.json",
        "rewards.csv",
        "kl_metrics.json",
        "model_card.md",
        "base/model.safetensors",
    }
    assert wanted | {"teacher_judgements.jsonl", "base/tokenizer.json"} <= names
    manifest = release_files.verify(package)
    assert manifest["absent"] == ["teacher_usage.csv"]
    assert manifest["files"]["rewards.csv"]["size"] == 20
    with read_session() as session:
        base = get_version(session, "tiny-base")
        assert manifest["base"]["content_hash"] == base.content_hash
        servable = get_version(session, "v1.0-rl")
        assert servable.content_hash == manifest["version"]["content_hash"] == get_version(session, "tiny-rl").content_hash
    assert manifest["base"]["tokenizer_sha256"]
    assert manifest["base"]["chat_template_sha256"]
    card = (package / "model_card.md").read_text()
    assert "sample 77" in card
    assert "TOY MODEL" in card
    assert "人工智能" in card
    assert "0.4000 – 0.6000" in card
    assert [r.name for r in release.listing()] == ["v1.0-rl"]
    assert release.verify_registered(home, "v1.0-rl") == manifest


def test_a_copy_answers_identically_in_another_empty_home(home: Home, package: Path, tmp_path: Path, other_home: Callable) -> None:  # type: ignore[type-arg]
    before = answers(home, "tiny-rl")
    assert len(set(before)) > 2, "sampling must make a difference, else nothing is compared"
    copy = tmp_path / "usb" / "stick"
    shutil.copytree(package, copy)
    with other_home() as elsewhere:
        assert release.load(elsewhere, copy) == "v1.0-rl"
        assert release.load(elsewhere, copy) == "v1.0-rl"  # a second time changes nothing
        shutil.rmtree(copy)
        assert answers(elsewhere, "v1.0-rl") == before
        with read_session() as session:
            assert session.query(t.ModelVersion).count() == 2
            assert [e.action for e in session.query(t.AuditEntry)] == ["release_loaded"]


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("flip_weights", "release.file_changed"),
        ("flip_card", "release.file_changed"),
        ("flip_manifest", "release.manifest_changed"),
        ("space_in_manifest", "release.manifest_changed"),
        ("remove", "release.file_missing"),
        ("add", "release.file_added"),
        ("link", "release.link"),
        ("no_manifest", "release.no_package"),
    ],
)
def test_a_damaged_package_is_refused_in_one_sentence(home: Home, package: Path, damage: str, code: str) -> None:
    manifest = package / "manifest.json"
    if damage.startswith("flip"):
        path = {"flip_weights": package / "adapter/adapter_model.safetensors", "flip_card": package / "model_card.md"}.get(damage, manifest)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "space_in_manifest":
        manifest.write_text(manifest.read_text() + " ")
    elif damage == "remove":
        (package / "rewards.csv").unlink()
    elif damage == "add":
        (package / "adapter" / "more.txt").write_text("x")
    elif damage == "link":
        (package / "rewards.csv").unlink()
        (package / "rewards.csv").symlink_to(package / "config.json")
    else:
        manifest.unlink()
    with pytest.raises(UserError) as raised:
        release_files.verify(package)
    assert raised.value.code == code


def test_every_flipped_byte_of_the_manifest_is_found(package: Path) -> None:
    data = (package / "manifest.json").read_bytes()
    for at in range(0, len(data), 37):
        damaged = bytearray(data)
        damaged[at] ^= 1
        (package / "manifest.json").write_bytes(damaged)
        with pytest.raises(UserError):
            release_files.verify(package)


def test_a_manifest_written_anew_is_not_the_registered_one(home: Home, package: Path) -> None:
    about = json.loads((package / "manifest.json").read_text())
    (package / "model_card.md").write_text("perfectly safe")
    del about["files"], about["digest"]
    release_files.write_manifest(package, about)
    release_files.verify(package)
    with pytest.raises(UserError, match="manifest_changed"):
        release.verify_registered(home, "v1.0-rl")


def test_a_wrong_or_missing_base_is_refused(home: Home, tiny_weights: Path, tmp_path: Path, other_home: Callable) -> None:  # type: ignore[type-arg]
    add_tiny(home, tiny_weights)
    package = release.build(home, "tiny-rl", "v1.0-rl", out=tmp_path / "out")
    with other_home() as elsewhere:
        with pytest.raises(NotFound, match="base_missing"):
            release.load(elsewhere, package)
        shutil.copytree(tiny_weights / "endless", elsewhere.models / "base" / "other")
        with write_session() as session:
            path = elsewhere.models / "base" / "other"
            register_version(session, name="other", kind="base", path=elsewhere.relative(path), content_hash=folder_hash(path))
        with pytest.raises(UserError, match="wrong_base"):
            release.load(elsewhere, package, base="other")
        with read_session() as session:
            assert session.query(t.Release).count() == 0
            assert session.query(t.ModelVersion).count() == 1
        assert not (elsewhere.models / "rl").exists()


def test_what_cannot_be_released(home: Home, package: Path) -> None:
    with pytest.raises(UserError, match="name_taken"):
        release.build(home, "tiny-rl", "v1.0-rl")
    with pytest.raises(UserError, match="not_an_adapter"):
        release.build(home, "tiny-base", "v2")
    (home.models / "rl" / "v3").mkdir()
    with pytest.raises(UserError, match="folder_taken"):
        release.build(home, "tiny-rl", "v3")
    weights = home.models / "rl" / "tiny-rl" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="weights_not_intact"):
        release.build(home, "tiny-rl", "v4")
    assert not list((home.models / "rl").glob(".v*")), "a scratch folder was left behind"


def test_the_server_refuses_weights_that_changed_on_disk(home: Home, package: Path) -> None:
    assert served_version(home, "v1.0-rl").content_hash
    weights = package / "adapter" / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Unavailable, match="weights_changed"):
        served_version(home, "v1.0-rl")
    weights.write_bytes(data)
    assert served_version(home, "v1.0-rl").name == "v1.0-rl"
    base = home.models / "base" / "tiny-base" / "tokenizer.json"
    base.write_text(base.read_text() + " ")
    with pytest.raises(Unavailable, match="weights_changed"):
        served_version(home, "v1.0-rl")
