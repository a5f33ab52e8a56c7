"""Question writers by name: passages to pseudo-questions, the extra doors of a document. `open_writer(name)` is the one door.

    copying     our own small encoder-decoder (core.retrieval.question_model), trained from scratch by training.doc2query
    hub         a Hugging Face seq2seq or causal model fine-tuned by the same script

What is written for a passage depends on the passage, the number asked for and the seed, not on its neighbours in the batch, so
an incremental update writes what a full build would. The first question is the most likely one, the others are drawn among the
likeliest pieces; repeated ones are dropped. Beside them a writer of our training knows the words that questions about a passage
are expected to hold (core.retrieval.question_words). Whether a question finds its own passage is checked by who builds the index.
Needs torch (inside functions): called in jobs and benchmarks, never in the web process.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from core.errors import Unavailable, UserError
from core.retrieval import question_model as qm
from core.retrieval.question_words import QuestionWords
from core.retrieval.retrieval_models import get, weights_of
from core.retrieval.tokens import query_tokens, tokenise

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
#: draws are among this many of the likeliest pieces ...
TOP_K = 10
#: ... with probabilities to the power of 1 / TEMPERATURE
TEMPERATURE = 1.0
#: more than asked for are drawn, because some come twice
SPARE = 1.6
#: rows that have ended are dropped once fewer than this share go on
COMPACT = 0.7
#: so many of the commonest pieces are never written with a capital, though a passage may begin with one
PLAIN_WORDS = 400
#: rows (passage x question) computed at once
ROWS = 256


class Writer(Protocol):
    """`write` gives for each passage at most `num` different questions, the likeliest first; none for a text without words.

    `words` are those that questions about a passage are expected to hold; None for a writer that did not learn them."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def words(self) -> QuestionWords | None: ...
    def write(self, passages: Sequence[str], num: int, seed: int = 0) -> list[list[str]]: ...


def open_writer(name: str) -> Writer:
    """The registered writer of that name, its weights verified.

    Raises NotFound("embedding.no_such_model"), Unavailable("embedding.weights_missing" / "embedding.weights_changed" /
    "doc2query.damaged").
    """
    row = get(name, "doc2query")
    return read_writer(weights_of(row), name, row.content_hash)


def read_writer(folder: Path, name: str, content_hash: str = "") -> Writer:
    """A writer from its folder. Raises Unavailable("doc2query.damaged")."""
    try:
        about = json.loads((folder / "writer.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}")
        kind = CopyingWriter.read if about["form"] == "copying" else HubWriter
        writer = kind(folder, about, name, content_hash)
        writer.words = QuestionWords.read(folder)
        return writer
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable("doc2query.damaged", name=name, path=folder) from error


class CopyingWriter:
    """Our own model, in memory."""

    def __init__(self, weights: qm.Weights, shape: qm.Shape, vocabulary: qm.Vocabulary, name: str = "", content_hash: str = "") -> None:
        self.name, self.hash = name, content_hash
        self.words: QuestionWords | None = None
        self.weights, self.shape, self.vocabulary = weights, shape, vocabulary

    @staticmethod
    def read(folder: Path, about: dict[str, Any], name: str, content_hash: str) -> CopyingWriter:
        from safetensors.torch import load_file

        shape = qm.Shape(**about["shape"])
        weights = load_file(folder / "weights.safetensors")
        expected = {key: value.shape for key, value in qm.initial_weights(shape, 0).items()}
        if {key: value.shape for key, value in weights.items()} != expected:
            raise ValueError("weights of another shape")
        return CopyingWriter(weights, shape, qm.Vocabulary(about["vocabulary"], shape.num_hashed), name, content_hash)

    def save(self, folder: Path) -> None:
        """Write weights.safetensors and writer.json into `folder`, which exists."""
        from safetensors.torch import save_file

        save_file({key: value.detach().contiguous() for key, value in self.weights.items()}, folder / "weights.safetensors")
        shape = {key: getattr(self.shape, key) for key in self.shape.__slots__}
        about = {"format": FORMAT, "form": "copying", "shape": shape, "vocabulary": self.vocabulary.known}
        (folder / "writer.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    def write(self, passages: Sequence[str], num: int, seed: int = 0) -> list[list[str]]:
        import torch

        written: list[list[str]] = [[] for _ in passages]
        cut = [qm.pieces(p)[: self.shape.max_source] for p in passages]
        order = sorted((i for i in range(len(passages)) if tokenise(" ".join(cut[i]))), key=lambda i: (len(cut[i]), i))
        plain = set(self.vocabulary.known[:PLAIN_WORDS])
        drawn = 1 if num == 1 else round(num * SPARE)
        step = max(1, ROWS // drawn)
        with torch.inference_mode():
            for start in range(0, len(order), step):
                batch = order[start : start + step]
                rows = self._draw([cut[i] for i in batch], [_draws(passages[i], drawn, self.shape.max_target, seed) for i in batch])
                for i, texts in zip(batch, rows, strict=True):
                    capitals = {low: p for low, p in qm.capitals(passages[i]).items() if low not in plain}
                    written[i] = distinct([qm.join([capitals.get(p, p) for p in row]) for row in texts], num)
        return written

    def _draw(self, passages: Sequence[Sequence[str]], uniforms: Sequence[np.ndarray]) -> list[list[list[str]]]:
        """For each passage one list of pieces per row of its `uniforms` (questions, length); 0 takes the likeliest piece."""
        import torch

        sources = [qm.Source.of(self.vocabulary, p) for p in passages]
        num, size = len(uniforms[0]), len(self.vocabulary)
        num_ids = size + max(len(s.extra) for s in sources)
        rows, copies = padded([s.rows for s in sources]), padded([s.copies for s in sources])
        # what the decoder is fed after choosing id i: itself for a piece of the vocabulary, the hashed row for a copied one
        fed = padded([[*range(size), *(self.vocabulary.embedded(p) for p in s.extra)] for s in sources], num_ids)
        memory = qm.prepared(self.weights, self.shape, qm.encode(self.weights, self.shape, rows))
        memory = [x.repeat_interleave(num, 0) for x in memory]
        rows, copies, fed = (x.repeat_interleave(num, 0) for x in (rows, copies, fed))
        points = torch.from_numpy(np.concatenate(uniforms)).float()
        current = torch.full((len(rows), 1), qm.START)
        written = torch.full((len(rows), self.shape.max_target), qm.END)
        alive = torch.arange(len(rows))
        past: list[Tensor] | None = None
        for step in range(self.shape.max_target):
            words, copying, gate, past = qm.decode(self.weights, self.shape, current, memory, rows, past)
            chances = qm.mixture(words[:, 0], copying[:, 0], gate[:, 0], copies, num_ids)
            chances[:, : qm.END + (step == 0)] = 0
            so_far = written[alive, :step]
            if step:
                _no_repeats(chances, so_far)
            best = chances.topk(min(TOP_K, num_ids), 1)
            likely = best.values ** (1 / TEMPERATURE)
            cumulated = likely.cumsum(1)
            point = points[alive, step]
            place = (cumulated <= point[:, None] * cumulated[:, -1:]).sum(1).clamp_max(likely.shape[1] - 1)
            piece = best.indices.gather(1, torch.where(point == 0, 0, place)[:, None])
            written[alive, step] = piece[:, 0]
            going = piece[:, 0] != qm.END
            if not going.any():
                break
            current = fed.gather(1, piece)
            if going.float().mean() < COMPACT:  # most questions are short: do not compute what has ended
                alive, rows, copies, fed, current = (x[going] for x in (alive, rows, copies, fed, current))
                memory, past = [x[going] for x in memory], [x[going] for x in past]
        ids = written.tolist()
        return [[self._pieces(ids[i * num + r], s) for r in range(num)] for i, s in enumerate(sources)]

    def _pieces(self, ids: Sequence[int], source: qm.Source) -> list[str]:
        found = []
        for i in ids:
            if i == qm.END:
                break
            found.append(self.vocabulary.known[i - qm.NUM_SPECIAL] if i < len(self.vocabulary) else source.extra[i - len(self.vocabulary)])
        return found


class HubWriter:
    """A fine-tuned Hugging Face model. A causal one continues the passage with the question (`PROMPT`)."""

    def __init__(self, folder: Path, about: dict[str, Any], name: str, content_hash: str) -> None:
        self.name, self.hash, self._folder = name, content_hash, folder
        self.words: QuestionWords | None = None
        self._is_seq2seq = about["form"] == "seq2seq"
        self._max_source, self._max_target = int(about["max_source"]), int(about["max_target"])
        self._loaded: tuple[Any, Any] | None = None

    def write(self, passages: Sequence[str], num: int, seed: int = 0) -> list[list[str]]:
        import torch

        model, tokenizer = self._loaded = self._loaded or load_hub(str(self._folder), is_seq2seq=self._is_seq2seq)
        written: list[list[str]] = []
        with torch.inference_mode():
            for passage in passages:  # one at a time, so that its own seed decides
                torch.manual_seed(zlib.crc32(passage.encode()) ^ seed)
                ids = torch.tensor([hub_source(tokenizer, passage, self._max_source, is_seq2seq=self._is_seq2seq)])
                options = {
                    "max_new_tokens": self._max_target,
                    "do_sample": True,
                    "top_k": TOP_K,
                    "num_return_sequences": round(num * SPARE),
                }
                found = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=tokenizer.pad_token_id, **options)
                new = found if self._is_seq2seq else found[:, ids.shape[1] :]
                texts = [text.partition("\n")[0].strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
                written.append(distinct(texts, num))
        return written


#: between a passage and its question, for a causal model
PROMPT = "\nQuestion: "


def load_hub(path: str, *, is_seq2seq: bool) -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer with a pad token) from a folder or, where the hub may be asked, by name."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    is_local = Path(path).is_dir() or bool(os.environ.get("HF_HUB_OFFLINE"))
    kind = AutoModelForSeq2SeqLM if is_seq2seq else AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=is_local)
        model = kind.from_pretrained(path, local_files_only=is_local)
    except (OSError, ValueError) as error:
        raise UserError("doc2query.no_such_base", base=path) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


def hub_source(tokenizer: Any, passage: str, max_source: int, *, is_seq2seq: bool) -> list[int]:
    """Token ids of what the model is given."""
    if is_seq2seq:
        return list(tokenizer(passage, truncation=True, max_length=max_source)["input_ids"])
    head = list(tokenizer(passage, truncation=True, max_length=max_source, add_special_tokens=False)["input_ids"])
    return head + list(tokenizer(PROMPT, add_special_tokens=False)["input_ids"])


def distinct(questions: Sequence[str], num: int) -> list[str]:
    """The first `num` that differ in what is searched of them; those without a searchable word are left out."""
    found: dict[tuple[str, ...], str] = {}
    for question in questions:
        key = tuple(query_tokens(question))
        if tokenise(question) and key not in found:
            found[key] = question
    return list(found.values())[:num]


def _no_repeats(chances: Tensor, so_far: Tensor) -> None:
    """Nothing twice running, and no two pieces twice in the same order. Changes `chances` (B, ids); `so_far` (B, t), t > 0."""
    chances.scatter_(1, so_far[:, -1:], 0)
    if so_far.shape[1] > 1:
        is_same = so_far[:, :-1] == so_far[:, -1:]
        rows, places = is_same.nonzero(as_tuple=True)
        chances[rows, so_far[rows, places + 1]] = 0


def padded(rows: Sequence[Sequence[int]], width: int = 0) -> Tensor:
    """(B, longest or `width`) int64, filled up with PAD."""
    import torch

    width = width or max(map(len, rows))
    return torch.tensor([[*row, *[qm.PAD] * (width - len(row))] for row in rows])


def _draws(passage: str, num: int, length: int, seed: int) -> np.ndarray:
    """Uniform numbers (num, length) of this passage alone; the first row is 0: the likeliest question."""
    found = np.random.default_rng([seed, zlib.crc32(passage.encode())]).random((num, length))
    found[0] = 0
    return found
