"""The sampler against transformers' own generate, and what it promises about seeds and batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import NotFound, UserError
from core.home import Home
from core.policy import Policy, pick, row_seed, visible
from core.records import Message

QUESTIONS = ("发热三天，可以用布洛芬吗？", "Adult with chest pain, now cold sweat. Can aspirin be used?", "头痛", "Hi " * 30)


@pytest.fixture
def policy(trained: Home) -> Policy:
    loaded = Policy.load(trained, str(trained.models / "base" / "tiny-base"), "cpu")
    loaded.add_adapter("v1.0-sft", trained.models / "sft" / "tiny-sft")
    return loaded


@pytest.mark.training
@pytest.mark.parametrize("adapter", [None, "v1.0-sft"])
def test_greedy_is_token_for_token_what_transformers_generates(policy: Policy, adapter: str | None) -> None:
    import torch

    prompts = [policy.encode([Message("user", q)]) for q in QUESTIONS]
    assert len(set(map(len, prompts))) == len(prompts)  # the padding is put to the test
    ours = policy.sample(prompts, adapter=adapter, temperature=0, max_new_tokens=40, seeds=[0] * 4, batch_size=3)
    width = max(map(len, prompts))
    ids = torch.tensor([[policy.pad_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with policy.using(adapter) as model, torch.inference_mode():
        theirs = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=40, eos_token_id=policy.eos_id, pad_token_id=policy.pad_id
        )
    for row, found in enumerate(ours):
        expected = theirs[row, width:].tolist()
        if policy.eos_id in expected:
            expected = expected[: expected.index(policy.eos_id) + 1]
        assert found == expected


@pytest.mark.training
def test_a_row_depends_on_its_seed_and_not_on_its_neighbours(policy: Policy) -> None:
    prompts = [policy.encode([Message("user", q)]) for q in QUESTIONS]
    options = {"adapter": "v1.0-sft", "temperature": 1.0, "max_new_tokens": 30}
    together = policy.sample(prompts, seeds=[1, 2, 3, 4], **options)  # type: ignore[arg-type]
    alone = [policy.sample([p], seeds=[s], **options)[0] for p, s in zip(prompts, [1, 2, 3, 4], strict=True)]  # type: ignore[arg-type]
    assert together == alone
    assert policy.sample(prompts, seeds=[5, 6, 7, 8], **options) != together  # type: ignore[arg-type]


@pytest.mark.training
def test_steps_end_with_the_end_token_and_none_afterwards(policy: Policy) -> None:
    prompts = [policy.encode([Message("user", q)]) for q in QUESTIONS]
    rows: list[list[int | None]] = [[] for _ in prompts]
    for tokens in policy.decode_steps(prompts, adapter=None, temperature=1.0, max_new_tokens=60, seed=3):
        for row, token in zip(rows, tokens, strict=True):
            row.append(token)
    for row in rows:
        ids = [token for token in row if token is not None]
        assert row[: len(ids)] == ids
        assert not set(ids[:-1]) & policy.eos_ids
        assert ids[-1] in policy.eos_ids or len(ids) == 60


def test_what_a_row_may_look_at() -> None:
    """Two rows of three columns, the first with one column of padding."""
    import torch

    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    first = visible(mask, 3, 3)[:, 0].int().tolist()
    assert first == [[[1, 0, 0], [0, 1, 0], [0, 1, 1]], [[1, 0, 0], [1, 1, 0], [1, 1, 1]]]
    assert visible(mask, 1, 4)[:, 0, 0].int().tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.training
def test_a_row_is_reported_once_as_soon_as_it_ends(policy: Policy) -> None:
    prompts = [policy.encode([Message("user", q)]) for q in QUESTIONS]
    ended: list[tuple[int, list[int]]] = []
    options = {"adapter": "v1.0-sft", "temperature": 1.0, "max_new_tokens": 60, "batch_size": 3}
    found = policy.sample(prompts, seeds=[1, 2, 3, 4], on_finished=lambda i, ids: ended.append((i, list(ids))), **options)  # type: ignore[arg-type]
    assert sorted(ended) == sorted(enumerate(found))
    first = [len(ids) for i, ids in ended if i != min(range(4), key=lambda j: len(prompts[j]))]  # the batch of three
    assert first == sorted(first)


@pytest.mark.training
def test_text_keeps_the_thinking_tags_and_drops_control_tokens(policy: Policy) -> None:
    ids = policy.tokenizer("<think>\n1. a\n</think>\nb<|im_end|>")["input_ids"]
    assert policy.decode(ids) == "<think>\n1. a\n</think>\nb"
    assert policy.pad_id != policy.eos_id
    assert len(policy.tokenizer("<think></think>")["input_ids"]) == 2


@pytest.mark.training
def test_switching_adapters_leaves_no_trace(policy: Policy, trained: Home) -> None:
    import torch

    policy.add_adapter("same", trained.models / "sft" / "tiny-sft")
    ids = torch.tensor([policy.encode([Message("user", QUESTIONS[1])])])

    def logits(adapter: str | None) -> torch.Tensor:
        with policy.using(adapter) as model, torch.inference_mode():
            found: torch.Tensor = model(input_ids=ids).logits
            return found

    base, first = logits(None), logits("v1.0-sft")
    assert not torch.equal(base, first)
    assert torch.equal(logits("same"), first)
    assert torch.equal(logits(None), base)
    policy.drop_adapter("v1.0-sft")
    with pytest.raises(NotFound):
        logits("v1.0-sft")
    assert torch.equal(logits("same"), first)


def test_sampling_follows_the_distribution() -> None:
    import torch

    logits = torch.tensor([[0.0, 1.0, 2.0, -50.0]]).repeat(20_000, 1)
    counts = torch.bincount(pick(logits, 1.0, torch.rand(20_000, generator=torch.Generator().manual_seed(0)).double()), minlength=4)
    shares = counts / counts.sum()
    assert torch.allclose(shares, torch.softmax(logits[0], -1), atol=0.015)
    assert counts[3] == 0
    assert set(pick(logits[:5], 0, torch.zeros(5)).tolist()) == {2}


def test_row_seeds_are_distinct() -> None:
    assert len({row_seed(seed, key) for seed in range(40) for key in range(200)}) == 8000


def test_a_base_that_is_not_there_is_said_in_a_sentence(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Policy.load(home, str(tmp_path / "nowhere"))
    assert caught.value.code == "training.base_not_found"
