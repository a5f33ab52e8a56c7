"""The PPO job: what it writes, how it goes on after a kill, an outage or a stop, on several processes and with another sampler."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.completions import split_completion
from core.errors import UserError
from core.home import Home, open_home
from core.jobs.configs import PPOConfig
from core.jobs.tasks import argv_of
from core.models import folder_hash, get_version
from core.records import Judgement, Language, Message, Prompt, Reward, Risk
from core.rewards import PARTS, rules_only_map
from core.settings import load_settings
from core.teacher import Usage
from db import tables as t
from db.engine import read_session
from tests.factories import version
from tests.teacher.endpoint import Answer, ScriptedEndpoint, Seen, completion, verdict
from tests.training.conftest import ROOT, TINY_PPO, start, write_config
from training.ppo_scoring import RULES_ONLY, TEACHER, Row, ScoredRollout

pytestmark = pytest.mark.training
PATIENCE_S = 240
RunHere = Callable[..., Path]
CLOCK = {"at", "seconds", "seconds/teacher"}
FILES = {
    "adapter_config.json", "adapter_model.safetensors", "value_head.safetensors", "config.json", "rewards.csv", "kl_metrics.json",
    "teacher_usage.csv", "samples.jsonl", "hack_watch.json", "estimate.json", "actuals.json",
}  # fmt: skip


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    opened = ScriptedEndpoint(judge)
    yield opened
    opened.close()


def judge(seen: Seen) -> Answer:
    """Likes long answers."""
    if seen.is_probe:
        return Answer(body=completion("ok"))
    return verdict(seen, teacher_score=round(min(1.0, len(seen.data["answer"]) / 80), 3))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Without what the clock says."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


def version_of(name: str) -> t.ModelVersion:
    with read_session() as session:
        return get_version(session, name)


def tensors(home: Home, name: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(home.resolve(version_of(name).path) / "adapter_model.safetensors")
    return found


def with_endpoint(home: Home, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The same home with a teacher behind the endpoint, for this process and those it starts."""
    values = {"HOME": str(home.root), "NUM_THREADS": "1", "TEACHER_BASE_URL": endpoint.url, "TEACHER_MODEL": "judge-1"}
    environment = {f"CONSILIUM_{name}": value for name, value in {**values, "TEACHER_TIMEOUT_S": "5"}.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return open_home(load_settings(environment))


# ---------------------------------------------------------------- parts


def prompt(i: int, risk: Risk) -> Prompt:
    return Prompt((Message("user", f"{i}?"),), Language.EN, risk=risk, sample_id=i)


@pytest.mark.parametrize(("num_high", "num_other"), [(8, 92), (81, 19), (10, 0), (0, 10)])
def test_prompts_are_walked_through_with_enough_high_risk(num_high: int, num_other: int) -> None:
    from training.ppo import choose_prompts

    prompts = [prompt(i, Risk.HIGH if i < num_high else Risk.LOW) for i in range(num_high + num_other)]
    config = PPOConfig(rollout_batch_size=16)
    rollouts = [choose_prompts(prompts, n, config) for n in range(25)]
    assert {len(chosen) for chosen in rollouts} == {16}
    if num_high:
        assert all(sum(p.risk is Risk.HIGH for p in chosen) >= 0.4 * 16 for chosen in rollouts)
    seen = Counter(p.sample_id for chosen in rollouts for p in chosen)
    for group in (range(num_high), range(num_high, num_high + num_other)):  # each group is passed through evenly
        counts = {seen[i] for i in group}
        assert not counts or max(counts) - min(counts) <= 1
    if num_high == 81:  # nothing to lift: 4 passes over all 100 are 25 rollouts of 16
        assert set(seen.values()) <= {3, 4, 5}
        assert sum(count == 4 for count in seen.values()) >= 98
    assert rollouts[3] == choose_prompts(prompts, 3, config)
    assert rollouts[3] != choose_prompts(prompts, 3, PPOConfig(rollout_batch_size=16, seed=1))


def test_passes_over_the_prompts_make_rollouts() -> None:
    from training.ppo import count_rollouts

    assert count_rollouts(PPOConfig(num_prompt_epochs=3), 2000) == 94
    assert count_rollouts(PPOConfig(num_rollouts=7), 2000) == 7


def test_rounds_are_numbered_on(home: Home) -> None:
    from db.engine import write_session
    from training.ppo import next_round

    with write_session() as session:
        assert next_round(session) == "rl-round1"
        for name in ("rl-round2", "rl-round10", "rl-roundabout", "rl-round3-b"):
            version(session, "rl", name=name)
        assert next_round(session) == "rl-round11"


def test_files_leave_a_blank_where_nothing_was_scored(tmp_path: Path) -> None:
    from training.ppo_files import RunFiles

    def row(text: str, score: float, reward: float | None) -> Row:
        parts = dict.fromkeys(PARTS, None) | {"chain": 0.5}
        judgement = Judgement("t", "r", reward) if reward is not None else None
        found = Reward(reward, parts, "v1", None if reward is not None else "nothing_scored")
        return Row(split_completion(text), (), {"copied": 0.1}, 0.4, found, judgement, score)

    rows = [row("<think>a</think>b", math.nan, None), row("<think>a</think>c", 0.0, 0.25)]
    files = RunFiles(tmp_path)
    files.keep_until(0)
    scored = ScoredRollout(TEACHER, None, rows, None, [], None, Usage(cost_usd=None))
    prompts = [prompt(7, Risk.HIGH), prompt(8, Risk.LOW)]
    files.append(1, prompts, scored, [5, 6], [0.0, 0.1])
    files.append_samples(1, prompts, scored, [0.0, 0.1])
    found = rows_of(tmp_path / "rewards.csv")
    assert [(r["score"], r["reward"], r["chain"], r["teacher"], r["mode"], r["kind"]) for r in found] == [
        ("", "", "0.5", "", "teacher", "sample"),
        ("0.0", "0.25", "0.5", "", "teacher", "sample"),
    ]
    assert rows_of(tmp_path / "teacher_usage.csv")[0]["cost_usd"] == ""
    assert files.teacher_totals()["usd"] is None  # unknown is not free
    assert [json.loads(line)["score"] for line in (tmp_path / "samples.jsonl").read_text().splitlines()] == [None, 0.0]
    files.keep_until(0)
    assert rows_of(tmp_path / "rewards.csv") == []
    assert (tmp_path / "samples.jsonl").read_text() == ""


# ---------------------------------------------------------------- going on


def test_stopped_and_resumed_equals_uninterrupted(trained: Home, run_here: RunHere) -> None:
    from training.ppo import train

    config = {**TINY_PPO, "num_rollouts": 3, "save_steps": 1}
    whole = run_here(train, "whole", "ppo", {**config, "name": "whole"})
    run_here(train, "parts", "ppo", {**config, "name": "parts"}, stop_after=2)  # two questions per rollout: stops in the second
    assert [path.name for path in (trained.runs / "parts" / "checkpoints").iterdir()] == ["step-0000001"]
    with (trained.runs / "parts" / "rewards.csv").open("a") as file:  # a kill between the tables and the checkpoint
        file.write("2,sample,teacher,1,en,high,0.1\n2,sam")
    with (trained.runs / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "objective/kl": 1.0}\n{"step": 3, "obj')
    parts = run_here(train, "parts", "ppo", {**config, "name": "parts"})
    first, second = tensors(trained, "whole"), tensors(trained, "parts")
    assert all((first[name] == second[name]).all() for name in first)
    for name in ("rewards.csv", "samples.jsonl", "hack_watch.json"):
        assert (whole / name).read_text() == (parts / name).read_text()
    assert metrics(whole) == metrics(parts)
    run_here(train, "other", "ppo", {**config, "name": "other", "seed": 1})
    assert version_of("other").content_hash != version_of("whole").content_hash


def test_killed_while_the_teacher_reads_it_goes_on_exactly_and_pays_nothing_twice(
    trained: Home, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.ppo import train
    from training.run import Run

    home = with_endpoint(trained, endpoint, monkeypatch)
    config = {**TINY_PPO, "num_rollouts": 5, "save_steps": 2}
    run_dir = write_config(trained.root, "killed", "ppo", {**config, "name": "killed"})
    in_fourth = threading.Event()

    def script(seen: Seen) -> Answer:
        if (run_dir / "metrics.jsonl").is_file() and len((run_dir / "metrics.jsonl").read_text().splitlines()) == 3:
            in_fourth.set()
        return judge(seen)

    endpoint.script = script
    with (run_dir / "log.txt").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "training.ppo", "--run-dir", str(run_dir)], cwd=ROOT, stdout=log, stderr=log)
        assert in_fourth.wait(PATIENCE_S), (run_dir / "log.txt").read_text()
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-0000002"]
    assert len(metrics(run_dir)) == 3  # one rollout more than the checkpoint knows
    before = Counter((seen.data["conversation"][-1]["content"], seen.data["answer"], seen.data["thinking"]) for seen in endpoint.judged)

    code, _ = start(trained.root, "killed", "ppo", {**config, "name": "killed"})
    assert code == 0, (run_dir / "log.txt").read_text()
    total = Counter((seen.data["conversation"][-1]["content"], seen.data["answer"], seen.data["thinking"]) for seen in endpoint.judged)
    asked_twice = {key: n for key, n in total.items() if n > 1}
    assert sum(asked_twice.values()) - len(asked_twice) <= 8  # only what was on its way when it was killed
    third = rows_of(run_dir / "teacher_usage.csv")[2]
    assert third["num_asked"] == third["num_cached"]  # rollout 3 was done before: every verdict came from the cache
    assert int(third["num_requests"]) <= 1  # a probe
    assert len(before) < len(total)

    num_requests = len(endpoint.judged)
    whole = write_config(trained.root, "whole", "ppo", {**config, "name": "whole"})
    train(Run(whole, 0, home))
    assert len(endpoint.judged) == num_requests
    first, second = rows_of(whole / "rewards.csv"), rows_of(run_dir / "rewards.csv")
    assert first == second  # equal to the last digit, not to 1e-5 only
    assert len(first) == 5 * 8
    assert metrics(whole) == metrics(run_dir)
    one, other = tensors(trained, "whole"), tensors(trained, "killed")
    assert all((one[name] == other[name]).all() for name in one)


def test_an_outage_in_the_middle_of_a_run_is_written_down(
    trained: Home, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.ppo_scoring as ppo_scoring
    from training.ppo import train
    from training.run import Run

    home = with_endpoint(trained, endpoint, monkeypatch)
    monkeypatch.setattr(ppo_scoring, "rules_only_map", partial(rules_only_map, min_rows=8))  # the run is tiny
    run_dir = write_config(trained.root, "outage", "ppo", {**TINY_PPO, "name": "", "num_rollouts": 4, "rollout_batch_size": 16})

    class Watching(Run):
        def log(self, step: int, **values: float) -> None:
            super().log(step, **values)
            endpoint.script = (lambda _seen: Answer(401)) if step == 2 else judge  # a key withdrawn: down at once, and back

    train(Watching(run_dir, 0, home))
    rows = rows_of(run_dir / "rewards.csv")
    modes = {int(row["rollout"]): row["mode"] for row in rows if row["kind"] == "sample"}
    assert modes == {1: TEACHER, 2: TEACHER, 3: RULES_ONLY, 4: TEACHER} or modes == {1: TEACHER, 2: TEACHER, 3: RULES_ONLY, 4: RULES_ONLY}
    scored = [row for row in rows if row["kind"] == "sample" and row["mode"] == RULES_ONLY and row["rules_reward"]]
    for row in (row for row in scored if row["finish_reason"] == "stop" and row["unscored_reason"] != "empty_answer"):
        assert float(row["score"]) == pytest.approx(float(row["map_a"]) + float(row["map_b"]) * float(row["rules_reward"]), abs=1e-4)
        assert row["reward"] == row["teacher"] == ""  # not known is not zero
    usage = rows_of(run_dir / "teacher_usage.csv")
    assert usage[2]["mode"] == RULES_ONLY
    assert usage[2]["reason"] in ("bad_key", "endpoint_down")
    result = json.loads((run_dir / "result.json").read_text())
    assert result["version"] == "rl-round1"
    assert result["num_rules_only_rollouts"] == sum(mode == RULES_ONLY for mode in modes.values())
    made = version_of("rl-round1")
    folder = trained.resolve(made.path)
    assert folder == trained.models / "rl" / "round1"
    assert {path.name for path in folder.iterdir()} >= FILES
    assert made.content_hash == folder_hash(folder)
    assert made.manifest["teacher"]["num_rules_only_rollouts"] == result["num_rules_only_rollouts"]
    actual = json.loads((folder / "actuals.json").read_text())
    estimate = json.loads((folder / "estimate.json").read_text())
    assert actual["num_samples"] == estimate["num_samples"] == 64
    assert actual["tokens"]["generated"] == sum(int(row["num_tokens"]) for row in rows if row["kind"] == "sample")


def test_a_teacher_that_never_answers_stops_the_run_with_a_sentence(
    trained: Home, endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.ppo import train
    from training.run import Run

    home = with_endpoint(trained, endpoint, monkeypatch)
    endpoint.script = lambda _seen: Answer(401)
    run_dir = write_config(trained.root, "silent", "ppo", {**TINY_PPO, "name": "silent", "teacher_wait_minutes": 0})
    with pytest.raises(UserError) as caught:
        train(Run(run_dir, 0, home))
    assert caught.value.code == "training.teacher_away"
    assert rows_of(run_dir / "rewards.csv") == []
    assert not (trained.models / "rl" / "silent").exists()


# ---------------------------------------------------------------- other hands


def test_two_processes_are_one_run(trained: Home, run_here: RunHere) -> None:
    from training.ppo import train

    config = {**TINY_PPO, "num_rollouts": 2}
    one = run_here(train, "one", "ppo", {**config, "name": "one"})
    run_dir = write_config(trained.root, "two", "ppo", {**config, "name": "two", "num_processes": 2})
    environment = {**os.environ, "CONSILIUM_HOME": str(trained.root), "CONSILIUM_NUM_THREADS": "1", "CONSILIUM_DEVICE": "cpu"}
    command = argv_of("ppo", {"num_processes": 2}, run_dir)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = rows_of(one / "rewards.csv"), rows_of(run_dir / "rewards.csv")
    assert [(r["sample_id"], r["score"], r["num_tokens"]) for r in first[:8]] == [
        (r["sample_id"], r["score"], r["num_tokens"]) for r in second[:8]
    ]
    assert len(second) == len(first) == 16
    for mine, theirs in zip(metrics(one), metrics(run_dir), strict=True):
        assert mine.keys() == theirs.keys()
    for name in ("objective/kl", "objective/scores", "loss/policy_avg", "loss/value_avg", "policy/approxkl_avg", "policy/grad_norm"):
        assert metrics(one)[0][name] == pytest.approx(metrics(run_dir)[0][name], rel=1e-3, abs=1e-5)
    assert version_of("two").manifest["config"]["num_processes"] == 2


def test_vllm_is_asked_through_its_own_words(trained: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with vLLM's interface that answers by our sampler: adapter, ids, limits and seeds arrive, completions come back."""
    from core.policy import Policy
    from training.ppo_vllm import VllmSampler, check_engine

    config = PPOConfig(rollout_engine="vllm", max_new_tokens=24)
    with pytest.raises(UserError) as caught:
        check_engine(config, "cuda")
    assert caught.value.code == "training.no_vllm"
    policy = Policy.load(trained, str(trained.models / "base" / "tiny-base"), "cpu")
    policy.add_adapter("policy", trained.models / "sft" / "tiny-sft")
    seen: list[Any] = []

    class Engine:
        @classmethod
        def from_engine_args(cls, arguments: dict[str, Any]) -> Engine:
            seen.append(arguments)
            return cls()

        def __init__(self) -> None:
            self.waiting: list[Any] = []

        def add_request(self, request_id: str, prompt: dict[str, list[int]], params: dict[str, Any], lora_request: Any) -> None:
            assert (Path(lora_request[2]) / "adapter_model.safetensors").is_file()
            self.waiting.append((request_id, prompt["prompt_token_ids"], params))

        def has_unfinished_requests(self) -> bool:
            return bool(self.waiting)

        def step(self) -> list[Any]:
            request_id, ids, params = self.waiting.pop()  # in whatever order it likes
            (found,) = policy.sample(
                [ids], adapter="policy", temperature=params["temperature"], max_new_tokens=params["max_tokens"], seeds=[params["seed"]]
            )
            ended = found[-1] in policy.eos_ids
            kept = found[:-1] if ended and len(found) % 2 else found  # engines differ in whether they hand the end token out
            answer = types.SimpleNamespace(token_ids=kept, finish_reason="stop" if ended else "length")
            return [types.SimpleNamespace(finished=False), types.SimpleNamespace(finished=True, request_id=request_id, outputs=[answer])]

    vllm, requests = types.ModuleType("vllm"), types.ModuleType("vllm.lora.request")
    vllm.EngineArgs, vllm.SamplingParams, vllm.LLMEngine = dict, dict, Engine  # type: ignore[attr-defined]
    requests.LoRARequest = lambda name, number, path: (name, number, path)  # type: ignore[attr-defined]
    for name, module in (("vllm", vllm), ("vllm.lora", types.ModuleType("vllm.lora")), ("vllm.lora.request", requests)):
        monkeypatch.setitem(sys.modules, name, module)
    sampler = VllmSampler(policy, "base", config, trained.runs / "vllm", 40)
    assert (seen[0]["max_lora_rank"], seen[0]["max_model_len"], seen[0]["enable_lora"]) == (8, 64, True)
    queries = [policy.encode([Message("user", text)]) for text in ("Cough?", "Chest pain for two days?", "Fever?")]
    options: dict[str, Any] = {"adapter": "policy", "temperature": 1.0, "max_new_tokens": 24, "seeds": [3, 4, 5]}
    finished: dict[int, list[int]] = {}
    found = sampler.sample(queries, **options, on_finished=lambda row, ids: finished.update({row: ids}))
    assert found == policy.sample(queries, **options)
    assert finished == dict(enumerate(found))
    assert not any((trained.runs / "vllm").iterdir())


def test_the_start_refuses_a_reference_that_is_not_the_sft(trained: Home, run_here: RunHere, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.policy import Policy
    from training.ppo import train
    from training.ppo_learner import REFERENCE

    real = Policy.add_adapter

    def wrong(self: Any, name: str, path: Any, *, is_trainable: bool = False) -> None:
        real(self, name, path, is_trainable=is_trainable)
        if name == REFERENCE:
            for parameter_name, parameter in self.model.named_parameters():
                if f".{self.key_of(name)}." in parameter_name and "lora_B" in parameter_name:
                    parameter.data += 0.01

    monkeypatch.setattr(Policy, "add_adapter", wrong)
    with pytest.raises(AssertionError, match="not the SFT adapter"):
        run_here(train, "drifted", "ppo", {**TINY_PPO, "name": "drifted"})
