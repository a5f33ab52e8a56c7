"""What `training.doc2query` trains: our own copying model from scratch, or a Hugging Face model. One face for both.

A learner turns pairs into examples, gives the loss of some of them, and writes the folder that `core.retrieval.writers` opens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from core.errors import UserError
from core.jobs.configs_doc2query import Doc2QueryConfig
from core.retrieval import question_model as qm
from core.retrieval.writers import FORMAT, CopyingWriter, hub_source, load_hub, padded
from training.causal import IGNORED, Example, collate, completion_loss

#: (question, passage)
Pair = tuple[str, str]
SCRATCH = "copying"
#: shortest and longest span that is copied before the pairs are learnt, in pieces
SPAN = (4, 12)


class Learner(Protocol):
    """`parameters` are trained in place. `lengths` and `loss` speak of examples by their position in what `examples` gave."""

    parameters: dict[str, Tensor]
    learning_rate: float

    def examples(self, pairs: Sequence[Pair]) -> list[Any]: ...
    def length(self, example: Any) -> int: ...
    def loss(self, examples: Sequence[Any], *, is_training: bool) -> Tensor: ...
    def save(self, folder: Path) -> None: ...


def random_spans(passages: Sequence[str], num: int, max_source: int, seed: int) -> list[Pair]:
    """`num` (span of SPAN pieces, passage) pairs: to find a span's next piece is to copy, which a few thousand pairs hardly teach."""
    rng = random.Random(f"spans-{seed}")
    found = []
    for passage in rng.sample(passages, min(num, len(passages))):
        pieces = qm.pieces(passage)[:max_source]
        size = rng.randint(*SPAN)
        start = rng.randint(0, max(0, len(pieces) - size))
        found.append((qm.join(pieces[start : start + size]), passage))
    return found


def make_learner(config: Doc2QueryConfig, pairs: Sequence[Pair], passages: Sequence[str]) -> Learner:
    """The learner that the config names. Raises UserError("doc2query.no_such_base")."""
    return Copying(config, pairs, passages) if config.base == SCRATCH else Hub(config)


class Copying:
    """The model of `core.retrieval.question_model`, its vocabulary learnt from the training questions and all passages."""

    learning_rate = 2e-3

    def __init__(self, config: Doc2QueryConfig, pairs: Sequence[Pair], passages: Sequence[str]) -> None:
        questions = (qm.pieces(question) for question, _ in pairs)
        read = (qm.pieces(passage)[: config.max_source] for passage in passages)
        self.vocabulary = qm.Vocabulary.learn(questions, read, config.vocabulary, qm.NUM_HASHED)
        self.shape = qm.Shape(
            len(self.vocabulary),
            width=config.width,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            max_source=config.max_source,
            max_target=config.max_target,
        )
        self.parameters = {name: w.requires_grad_() for name, w in qm.initial_weights(self.shape, config.seed).items()}
        self._dropout = config.dropout

    def examples(self, pairs: Sequence[Pair]) -> list[tuple[qm.Source, list[int], list[int]]]:
        """(source, decoder inputs, targets); a piece that can be neither written nor copied is no target."""
        found = []
        for question, passage in pairs:
            source = qm.Source.of(self.vocabulary, qm.pieces(passage)[: self.shape.max_source])
            copied = {piece: len(self.vocabulary) + i for i, piece in enumerate(source.extra)}
            target = qm.pieces(question)[: self.shape.max_target - 1]
            ids = [self.vocabulary.id_of.get(piece) or copied.get(piece, qm.PAD) for piece in target]
            found.append((source, [qm.START, *map(self.vocabulary.embedded, target)], [*ids, qm.END]))
        return found

    def length(self, example: tuple[qm.Source, list[int], list[int]]) -> int:
        return len(example[0].rows) + len(example[1])

    def loss(self, examples: Sequence[tuple[qm.Source, list[int], list[int]]], *, is_training: bool) -> Tensor:
        sources, inputs, targets = zip(*examples, strict=True)
        rows, copies = padded([s.rows for s in sources]), padded([s.copies for s in sources])
        dropout = self._dropout if is_training else 0.0
        return qm.loss(self.parameters, self.shape, rows, copies, padded(inputs), padded(targets), dropout)

    def save(self, folder: Path) -> None:
        CopyingWriter({name: w.detach() for name, w in self.parameters.items()}, self.shape, self.vocabulary).save(folder)


class Hub:
    """A Hugging Face model by folder or name, all of it trained: an encoder-decoder, else a causal one after a prompt."""

    learning_rate = 1e-4

    def __init__(self, config: Doc2QueryConfig) -> None:
        from transformers import AutoConfig

        try:
            self.is_seq2seq = bool(AutoConfig.from_pretrained(config.base).is_encoder_decoder)
        except (OSError, ValueError) as error:
            raise UserError("doc2query.no_such_base", base=config.base) from error
        self.model, self.tokenizer = load_hub(config.base, is_seq2seq=self.is_seq2seq)
        self.parameters = dict(self.model.named_parameters())
        self._config = config

    def examples(self, pairs: Sequence[Pair]) -> list[Example]:
        """Source and question in one row; the loss is taken from `start` on."""
        found = []
        for question, passage in pairs:
            source = hub_source(self.tokenizer, passage, self._config.max_source, is_seq2seq=self.is_seq2seq)
            target = self.tokenizer(question, add_special_tokens=False)["input_ids"][: self._config.max_target - 1]
            found.append(Example([*source, *target, self.tokenizer.eos_token_id], len(source)))
        return found

    def length(self, example: Example) -> int:
        return len(example.ids)

    def loss(self, examples: Sequence[Example], *, is_training: bool) -> Tensor:
        self.model.train(is_training)
        if not self.is_seq2seq:
            return completion_loss(self.model, *collate(examples, self.tokenizer.pad_token_id, "cpu"))
        sources, targets = padded([e.ids[: e.start] for e in examples]), padded([e.ids[e.start :] for e in examples])
        is_source, is_target = (
            padded([[1] * e.start for e in examples]),
            padded([[1] * (len(e.ids) - e.start) for e in examples]) == 1,
        )
        labels = targets.masked_fill(~is_target, IGNORED)
        logits = self.model(input_ids=sources, attention_mask=is_source, labels=labels).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        form = "seq2seq" if self.is_seq2seq else "causal"
        about = {"format": FORMAT, "form": form, "max_source": self._config.max_source, "max_target": self._config.max_target}
        (folder / "writer.json").write_text(json.dumps(about), encoding="utf-8")
