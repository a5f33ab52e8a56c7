"""Build the demo: store its prompts, train a byte-level BPE tokenizer and a tiny Qwen3 from scratch, save both as a version.

The model is a toy and says so (`is_toy`). It has Qwen3's architecture, tokenizer split and chat template, so everything that
runs on it runs on a real Qwen unchanged. It first learns facts from plain texts and, mixed in, the form of an answer from
imperfect chat answers; SFT then trains an adapter on top. Never sees a held-out combination (see core.demo_world.samples).

    python -m training.demo_base --run-dir DIR      (job kind demo_base)
"""

from __future__ import annotations

import random
import re
import shutil
from typing import Any

import torch

from core.datasets import NewSample, store_samples
from core.demo_world import World, load_world, phrases, pretraining_texts, prompts, sft_answer
from core.home import Home
from core.jobs.configs import DemoBaseConfig
from core.jobs.configs_expansion_training import ExpansionBaseConfig
from core.models import check_name_free, folder_hash, register_version
from core.records import Split, VersionKind
from db import tables as t
from db.engine import read_session, write_session
from training.causal import Example, fit, num_parameters, prepare, replace_folder
from training.run import Run, main

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
#: Qwen2's pre-tokenizer split; digits one by one, letters of any script together
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 512
#: both kinds of job that make a base here
SmallBase = DemoBaseConfig | ExpansionBaseConfig


def build(run: Run) -> None:
    """Build the demo dataset and the demo base model."""
    config = run.config(DemoBaseConfig)
    with read_session() as session:
        check_name_free(session, config.name, job_id=run.job_id)

    # 1. The demo dataset: prompts with references, and for the train split one imperfect answer each, which SFT learns from.
    world = load_world()
    samples = with_demonstrations(world, prompts(world, config.seed), config.seed)
    dataset_hash = store_demo(samples, config.dataset, run.job_id)
    print(f"dataset {config.dataset}: {len(samples)} samples from {len(world.conditions)} conditions", flush=True)

    # 2. Texts: cards and notes with the world's facts, and chats with imperfect answers. The chats are other cases than the
    #    stored train prompts, drawn by other seeds; the loss is taken from what follows the question.
    texts = pretraining_texts(world, config.num_documents, config.seed)
    chats = extra_chats(world, config.num_chats, config.seed)
    tokenizer = train_tokenizer([*texts[:4000], *(text for chat in chats[:2000] for text in chat)], phrases(world), config.vocab_size)
    examples = document_examples(tokenizer, texts) + chat_examples(tokenizer, chats)
    num_tokens = sum(len(e.ids) for e in examples)
    print(f"{len(examples)} texts, {num_tokens} tokens, vocabulary {len(tokenizer)}", flush=True)

    # 3. The model. At this size an initial std of 0.02 learns far more slowly than 0.06-0.08 (docs/training_notes.md).
    prepare(run.home, config.seed, num_parameters=0)
    model = build_model(config, tokenizer)
    result = pretrain(run, config, model, tokenizer, examples, save_steps=500)

    # 4. Save a whole Hugging Face folder, then register it.
    manifest = {
        "dataset": {"name": config.dataset, "content_hash": dataset_hash},
        "num_texts": len(examples),
        "num_tokens": num_tokens,
        "metrics": result,
        "torch": torch.__version__,
    }
    digest = keep(run, config, model, tokenizer, manifest)
    run.result(version=config.name, content_hash=digest, dataset=config.dataset, num_samples=len(samples), **result)


def with_demonstrations(world: World, samples: list[NewSample], seed: int) -> list[NewSample]:
    """Put the imperfect answer of every train sample into its meta; SFT prefers it to the reference."""
    rng = random.Random(f"demonstrations-{seed}")
    for sample in samples:
        if sample.split is Split.TRAIN:
            sample.meta["demonstration"] = sft_answer(world, sample, rng)
    return samples


def store_demo(samples: list[NewSample], name: str, job_id: int) -> str:
    """Store the samples as a dataset (again: nothing new); returns its content hash."""
    from sqlalchemy import select

    with write_session() as session:
        dataset = session.scalar(select(t.Dataset).where(t.Dataset.name == name))
        if dataset is None:
            dataset = t.Dataset(name=name, kind="prompts", source="demo world", licence="synthetic", job_id=job_id or None)
            session.add(dataset)
            session.flush()
        store_samples(session, dataset, samples)
        return dataset.content_hash


def extra_chats(world: World, n: int, seed: int) -> list[tuple[str, str]]:
    """`n` (question, imperfect answer) pairs of the train split that are not in the stored dataset's order or wording."""
    rng, chats = random.Random(f"chats-{seed}"), list[tuple[str, str]]()
    draw = 1
    while len(chats) < n:
        fresh = [s for s in prompts(world, seed + 1000 * draw) if s.split is Split.TRAIN]
        chats += [(s.text, sft_answer(world, s, rng)) for s in fresh]
        draw += 1
    return chats[:n]


def document_examples(tokenizer: Any, texts: list[str]) -> list[Example]:
    """Plain texts. The first line of a text of several lines is a question, which is given, not learned."""
    parts = [text.partition("\n") for text in texts]
    heads = tokenizer([question + newline if rest else "" for question, newline, rest in parts])["input_ids"]
    bodies = tokenizer([(rest or question) + END_OF_TEXT for question, _, rest in parts])["input_ids"]
    return [Example([*head, *body][:CONTEXT], len(head)) for head, body in zip(heads, bodies, strict=True)]


def chat_examples(tokenizer: Any, chats: list[tuple[str, str]]) -> list[Example]:
    """Whole chats; the loss is taken from the answer only."""
    heads = [f"{START}user\n{question}{END}\n{START}assistant\n" for question, _ in chats]
    starts = tokenizer(heads)["input_ids"]
    answers = tokenizer([answer + END for _, answer in chats])["input_ids"]
    return [Example((head + answer)[:CONTEXT], len(head)) for head, answer in zip(starts, answers, strict=True)]


def train_tokenizer(texts: list[str], phrases: list[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with Qwen's split, its control tokens, and <think> tags as single tokens that stay visible.

    The world's phrases (a drug, a complaint, a piece of advice) are whole tokens beside the `vocab_size` learned ones: a model
    of a million parameters learns to copy and recall one token long before it can spell five (docs/training_notes.md).
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [END_OF_TEXT, START, END]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    whole = [f" {phrase}" if phrase.isascii() else phrase for phrase in phrases]
    between = re.compile("|".join(map(re.escape, whole)) or r"(?!)")  # what stands between phrases gets the learned tokens
    inner.train_from_iterator((piece for text in texts for piece in between.split(text)), trainer)
    inner.add_tokens([AddedToken(token, normalized=False) for token in ["<think>", "</think>", *whole]])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END,
        pad_token=END_OF_TEXT,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_model(config: DemoBaseConfig, tokenizer: Any) -> Any:
    """A Qwen3 of about a million parameters with tied embeddings. Two wide layers with many heads beat four narrow ones here."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    width = config.hidden_size
    shape = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=width // 8,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=config.init_std,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    model = Qwen3ForCausalLM(shape)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def pretrain(run: Run, config: SmallBase, model: Any, tokenizer: Any, examples: list[Example], *, save_steps: int) -> dict[str, float]:
    """Train all weights on the CPU; returns the figures of `fit`."""
    return fit(
        run,
        model,
        examples,
        phase="pretrain",
        num_epochs=config.num_epochs,
        batch_size=64,
        tokens_per_batch=config.tokens_per_batch,
        learning_rate=config.learning_rate,
        seed=config.seed,
        save_steps=save_steps,
        pad_id=tokenizer.pad_token_id,
        device="cpu",
    )


def keep(run: Run, config: SmallBase, model: Any, tokenizer: Any, manifest: dict[str, Any], *, task: str = "answer") -> str:
    """A whole Hugging Face folder under models/base, then its row, as a toy; returns its hash. `manifest`: what belongs to this kind."""
    home: Home = run.home
    scratch, target = run.dir / "model", home.models / "base" / config.name
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    replace_folder(scratch, target)
    digest = folder_hash(target)
    with write_session() as session:
        register_version(
            session,
            name=config.name,
            kind=VersionKind.BASE,
            path=home.relative(target),
            is_toy=True,
            content_hash=digest,
            manifest={"config": config.model_dump(), "num_parameters": num_parameters(model), **manifest},
            job_id=run.job_id,
            task=task,
        )
    return digest


if __name__ == "__main__":
    main(build)
