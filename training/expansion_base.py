"""A small base for query expansion, from scratch: a byte-level BPE tokenizer and a Qwen3 of a few million parameters, Chinese and English.

It reads passages and, as short chats without the instruction, the rows of the train split, so that it has seen what lines look like and
where an answer ends: the control tokens' embeddings are learned here or never, because SFT trains adapters only (without them one answer in
seven never ended). SFT then teaches it to answer the chat that Ask sends. It is a toy and says so (`is_toy`), and has Qwen3's architecture,
tokenizer split and chat template, so everything that runs on it runs on a real Qwen unchanged.

    python -m training.expansion_base --run-dir DIR      (job kind expansion_base)
"""

from __future__ import annotations

import random

from core.errors import UserError
from core.expansion.runs import rows_of
from core.expansion.schema import DEFAULT
from core.home import Home
from core.jobs.configs import DemoBaseConfig
from core.jobs.configs_expansion_training import ExpansionBaseConfig
from core.models import check_name_free
from core.retrieval.judged import read_corpus
from db.engine import read_session
from training.causal import Example, num_parameters, prepare
from training.demo_base import END, END_OF_TEXT, START, build_model, keep, pretrain, train_tokenizer
from training.expansion_common import corpus_folder, target
from training.run import Run, main

#: characters of a passage that are read
PASSAGE = 400


def build(run: Run) -> None:
    """Train tokenizer and model, save both as a version."""
    config = run.config(ExpansionBaseConfig)
    with read_session() as session:
        check_name_free(session, config.name, job_id=run.job_id)
    rows = rows_of(config.data, ("train",), run.home)
    if not rows:
        raise UserError("expansion_training.no_rows", data=config.data, split="train")
    passages = read_passages(run.home, config)
    texts = [f"{row.query}\n{target(row)}" for row in rows]
    tokenizer = train_tokenizer([DEFAULT, *texts, *passages], [], config.vocab_size)
    chats = [f"{START}user\n{row.query}{END}\n{START}assistant\n{target(row)}{END}" for row in rows]
    ids = tokenizer([*(text + END_OF_TEXT for text in passages), *chats], truncation=True)["input_ids"]
    examples = [Example(one, 0) for one in ids]
    print(
        f"{len(rows)} rows, {len(passages)} passages, {sum(len(e.ids) for e in examples)} tokens, vocabulary {len(tokenizer)}", flush=True
    )

    prepare(run.home, config.seed, num_parameters=0)
    shape = DemoBaseConfig(hidden_size=config.hidden_size, num_layers=config.num_layers, init_std=config.init_std)
    model = build_model(shape, tokenizer)
    result = pretrain(run, config, model, tokenizer, examples, save_steps=200)
    manifest = {"method": "expansion_base", "num_rows": len(rows), "num_passages": len(passages), "metrics": result}
    digest = keep(run, config, model, tokenizer, manifest, task="expansion")
    run.result(version=config.name, content_hash=digest, num_parameters=num_parameters(model), **result)


def read_passages(home: Home, config: ExpansionBaseConfig) -> list[str]:
    """The first characters of passages of all corpora, chosen by seed. Raises as `corpus_folder` and `read_corpus`."""
    folders = [part.strip() for part in config.corpora.split(",") if part.strip()]
    found = [document.text[:PASSAGE] for folder in folders for document in read_corpus(corpus_folder(home, folder))]
    return random.Random(f"passages-{config.seed}").sample(found, min(config.num_passages, len(found)))


if __name__ == "__main__":
    main(build)
