"""A language model that answers: one base in memory, any number of LoRA adapters on it, batched sampling with a KV cache.

The model server, sampling, evaluation and PPO's rollouts all generate with this one sampler, so an answer on the bench comes
from the code that produced the training data. A row's tokens depend on its own prompt and seed only, never on what else
stood in the batch (up to rounding): every row draws its uniform numbers from its own generator and inverts the cumulated
distribution, which is also far cheaper than `torch.multinomial` on a CPU (measured in docs/training_notes.md).
Any `AutoModelForCausalLM` with a chat template will do. torch is imported inside functions only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from core.errors import NotFound, Unavailable, UserError
from core.home import Home
from core.records import Message, VersionKind
from db import tables as t

if TYPE_CHECKING:
    import torch


#: called once per decoding step with the rows still alive (B), the step, the states (B, width) that predict the next token, the
#: logits (B, V) in float32 and the tokens chosen (B)
Observe = Callable[[list[int], int, "torch.Tensor", "torch.Tensor", "torch.Tensor"], None]


@dataclass(frozen=True, slots=True)
class Generated:
    """One completion. `finish_reason` is "stop" (the model ended it) or "length"; `num_tokens` counts the end token."""

    text: str
    finish_reason: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """Where a version's weights lie: `base` is a folder or a hub name, `adapter` a PEFT folder or None for a base."""

    base: str
    adapter: Path | None


def version_files(session: Session, home: Home, version: t.ModelVersion) -> VersionFiles:
    """The files of a stored version. One whose folder is a whole model (full fine-tuning) is its own base.

    Raises UserError("training.external_version") for a remote endpoint, Unavailable("training.weights_missing") when the
    folder is gone, NotFound("models.no_such_version") for an adapter whose base row is gone.
    """
    if version.kind == VersionKind.EXTERNAL:
        raise UserError("training.external_version", name=version.name)
    if version.kind == VersionKind.BASE:
        return VersionFiles(base_location(home, version.path), None)
    if is_whole_model(home, version):
        return VersionFiles(str(home.resolve(version.path)), None)
    base = session.get(t.ModelVersion, version.base_version_id) if version.base_version_id else None
    if base is None:
        raise NotFound("models.no_such_version", name=f"{version.name} (base)")
    adapter = home.resolve(version.path)
    if not (adapter / "adapter_config.json").is_file():
        raise Unavailable("training.weights_missing", name=version.name, path=adapter)
    return VersionFiles(base_location(home, base.path), adapter)


def is_whole_model(home: Home, version: t.ModelVersion) -> bool:
    """Does this version's folder hold all weights of a model, not an adapter that needs a base?"""
    folder = home.resolve(version.path)
    return (folder / "config.json").is_file() and any(folder.glob("model*.safetensors")) and not (folder / "adapter_config.json").exists()


def base_location(home: Home, stored: str) -> str:
    """A base's stored path as `from_pretrained` wants it: an existing folder, else the text itself (a hub name)."""
    folder = home.resolve(stored)
    return str(folder) if folder.is_dir() else stored


def load_version(home: Home, session: Session, version: t.ModelVersion, device: str = "auto") -> tuple[Policy, str | None]:
    """Load a version; returns the policy and the adapter name to pass to its methods. Raises as `version_files` and `load`."""
    files = version_files(session, home, version)
    policy = Policy.load(home, files.base, device)
    if files.adapter is None:
        return policy, None
    policy.add_adapter(version.name, files.adapter)
    return policy, version.name


def pick_device(home: Home, device: str = "auto") -> str:
    """ "auto" asks the setting, and where that is "auto" too, CUDA when present, else the CPU."""
    import torch

    wanted = home.settings.device if device == "auto" else device
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("training.no_cuda", device=wanted)
    return wanted


class Policy:
    """`model` is the transformers model until the first adapter is added, then the PeftModel around it."""

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.device = device
        #: held during every forward pass, so that requests with different adapters can share the model
        self.lock = threading.RLock()
        self._keys: dict[str, str] = {}
        generation = getattr(model, "generation_config", None)
        stop = getattr(generation, "eos_token_id", None)
        stops = stop if isinstance(stop, list) else [stop]
        self.eos_ids = frozenset(int(i) for i in [*stops, tokenizer.eos_token_id] if i is not None)
        self.eos_id = int(tokenizer.eos_token_id)
        #: never the end token: a model whose padding is its end token would not learn to stop
        self.pad_id = int(tokenizer.pad_token_id) if tokenizer.pad_token_id not in (None, self.eos_id) else (0 if self.eos_id else 1)

    @classmethod
    def load(cls, home: Home, base_path: str, device: str = "auto") -> Policy:
        """Load a base (folder or hub name): float32 on the CPU, bfloat16 on a GPU, dropout off.

        Raises UserError("training.base_not_found"), UserError("training.no_chat_template"), UserError("training.no_cuda").
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = pick_device(home, device)
        dtype = torch.float32 if place == "cpu" else torch.bfloat16
        try:
            tokenizer = AutoTokenizer.from_pretrained(base_path)
            model = AutoModelForCausalLM.from_pretrained(base_path, dtype=dtype, attn_implementation="sdpa")
        except (OSError, ValueError) as error:  # no such folder, no such hub name, no network, not a language model
            raise UserError("training.base_not_found", base=base_path, reason=str(error).splitlines()[0]) from error
        if tokenizer.chat_template is None:
            raise UserError("training.no_chat_template", base=base_path)
        return cls(model.to(place).eval(), tokenizer, place)

    def add_adapter(self, name: str, path: Path | str, *, is_trainable: bool = False) -> None:
        """Load a PEFT adapter under `name` (loading the same name again replaces it).

        Raises Unavailable("training.weights_missing") when the folder holds no adapter.
        """
        from peft import PeftModel

        if not (Path(path) / "adapter_config.json").is_file():
            raise Unavailable("training.weights_missing", name=name, path=path)
        with self.lock:
            if name in self._keys:
                self.drop_adapter(name)
            # a version's name may hold dots, a module's may not
            key = f"adapter{max((int(k[7:]) for k in self._keys.values()), default=-1) + 1}"
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(str(path), adapter_name=key, is_trainable=is_trainable)
            else:
                self.model = PeftModel.from_pretrained(self.model, str(path), adapter_name=key, is_trainable=is_trainable)
            self._keys[name] = key
            self.model.train(False)

    def adopt(self, model: Any, keys: dict[str, str]) -> None:
        """Go on with `model`, a PeftModel around ours whose adapters have the given PEFT names (training makes new adapters)."""
        with self.lock:
            self.model = model
            self._keys = dict(keys)

    def drop_adapter(self, name: str) -> None:
        """Forget an adapter; unknown names are ignored. The last one stays loaded, only unreachable by name."""
        with self.lock:
            key = self._keys.pop(name, None)
            if key is not None and len(self.model.peft_config) > 1:
                self.model.delete_adapter(key)

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(self._keys)

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[Any]:
        """The model with this adapter active (None: the bare base), held under the lock. Weights are never changed.

        Raises NotFound("models.no_such_version") for an adapter that was not added.
        """
        with self.lock:
            if adapter is None:
                if not self._keys:
                    yield self.model
                    return
                with self.model.disable_adapter():
                    yield self.model
                return
            if adapter not in self._keys:
                raise NotFound("models.no_such_version", name=adapter)
            key = self._keys[adapter]
            if self.model.active_adapter != key:
                self.model.set_adapter(key, inference_mode=True)
            yield self.model

    def key_of(self, adapter: str) -> str:
        """The name under which PEFT holds the adapter (part of its parameter names)."""
        return self._keys[adapter]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat, ending where the assistant starts to write."""
        chat = [{"role": m.role, "content": m.content} for m in messages]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids: `<think>` tags are kept, control tokens (end of turn, padding) are not."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decode_steps(
        self, prompt_ids: list[list[int]], *, adapter: str | None, temperature: float, max_new_tokens: int, seed: int
    ) -> Iterator[list[int | None]]:
        """Sample all rows together; yields one token id per row and step, None for rows that have ended.

        The end token itself is yielded: a row whose last id is in `eos_ids` finished with "stop", any other with "length".
        The lock is free between steps. `temperature` 0 is greedy.
        """
        return self._steps(prompt_ids, adapter, temperature, max_new_tokens, [row_seed(seed, i) for i in range(len(prompt_ids))])

    def sample(
        self,
        prompt_ids: list[list[int]],
        *,
        adapter: str | None,
        temperature: float,
        max_new_tokens: int,
        seeds: Sequence[int],
        batch_size: int = 64,
        on_progress: Callable[[int], None] | None = None,
        on_finished: Callable[[int, list[int]], None] | None = None,
        observe: Observe | None = None,
    ) -> list[list[int]]:
        """Completion ids (end token included where reached) for each prompt, in the order given; one seed per row.

        Rows of similar length share a batch; `on_progress` gets the number of prompts answered so far, `on_finished` each row's
        number and completion as soon as that row has ended, while its neighbours still generate. `observe` sees every step.
        """
        completions: list[list[int]] = [[] for _ in prompt_ids]
        order = sorted(range(len(prompt_ids)), key=lambda i: -len(prompt_ids[i]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            seen = (lambda at, *step, rows=rows: observe([rows[r] for r in at], *step)) if observe else None
            prompts = [prompt_ids[i] for i in rows]
            for tokens in self._steps(prompts, adapter, temperature, max_new_tokens, [seeds[i] for i in rows], seen):
                for i, token in zip(rows, tokens, strict=True):
                    if token is not None:
                        completions[i].append(token)
                        if on_finished and (token in self.eos_ids or len(completions[i]) == max_new_tokens):
                            on_finished(i, completions[i])
            if on_progress:
                on_progress(min(start + batch_size, len(order)))
        return completions

    def generate(
        self,
        messages_batch: Sequence[Sequence[Message]],
        *,
        adapter: str | None,
        temperature: float,
        max_new_tokens: int,
        seed: int,
        batch_size: int = 64,
        on_progress: Callable[[int], None] | None = None,
        row_keys: Sequence[int] | None = None,
    ) -> list[Generated]:
        """Answer chats. `row_keys` (a sample id, say) tie a row's randomness to what it is instead of where it stands."""
        keys = range(len(messages_batch)) if row_keys is None else row_keys
        completions = self.sample(
            [self.encode(messages) for messages in messages_batch],
            adapter=adapter,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seeds=[row_seed(seed, key) for key in keys],
            batch_size=batch_size,
            on_progress=on_progress,
        )
        return [Generated(self.decode(ids), "stop" if ids and ids[-1] in self.eos_ids else "length", len(ids)) for ids in completions]

    def _steps(
        self,
        prompt_ids: list[list[int]],
        adapter: str | None,
        temperature: float,
        max_new_tokens: int,
        seeds: Sequence[int],
        observe: Observe | None = None,
    ) -> Iterator[list[int | None]]:
        import torch

        num_rows, width = len(prompt_ids), max(map(len, prompt_ids))
        ids = torch.full((num_rows, width), self.pad_id)
        mask = torch.ones((num_rows, width + max_new_tokens), dtype=torch.long)
        for row, prompt in enumerate(prompt_ids):  # left padding: every row's newest token stands in the last column
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, : width - len(prompt)] = 0
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        uniforms = torch.stack([torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds])
        ids, mask, positions, uniforms = (x.to(self.device) for x in (ids, mask, positions, uniforms))

        config = self.model.config
        past = fixed_cache(config, width + max_new_tokens)
        makes_own_mask = type(past.layers[0]) is _fixed_layer() if past.layers else False
        alive = list(range(num_rows))  # the rows of the batch, as indices into prompt_ids
        done = [False] * num_rows
        for step in range(max_new_tokens):
            end = width + step
            # the mode is entered per step: it is thread-wide, and the consumer runs between steps
            with torch.inference_mode(), self.using(adapter) as model:
                options = {
                    "input_ids": ids,
                    "attention_mask": visible(mask, ids.shape[1], end) if makes_own_mask else mask[:, :end],
                    "position_ids": positions[:, end - ids.shape[1] : end],
                    "past_key_values": past,
                    "use_cache": True,
                }
                if observe is None:
                    logits = model(**options, logits_to_keep=1).logits[:, -1].float()
                else:  # the caller has made sure that the head does no more than this
                    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
                    states = inner.base_model(**options)[0][:, -1]
                    logits = inner.get_output_embeddings()(states).float()
                chosen = pick(logits, temperature, uniforms[:, step])
                if observe is not None:
                    observe(alive, step, states, logits, chosen)
                tokens = chosen.tolist()
            answer: list[int | None] = [None] * num_rows
            for row, token in zip(alive, tokens, strict=True):
                if not done[row]:
                    answer[row] = token
                    done[row] = token in self.eos_ids
            yield answer
            keep = [i for i, row in enumerate(alive) if not done[row]]
            if not keep:
                return
            ids = chosen[:, None]
            if len(keep) <= 0.8 * len(alive):  # dropping rows copies the cache: only when it pays
                alive = [alive[i] for i in keep]
                index = torch.tensor(keep, device=self.device)
                with torch.inference_mode():
                    past.batch_select_indices(index)
                    ids, mask, positions, uniforms = ids[index], mask[index], positions[index], uniforms[index]


def visible(mask: torch.Tensor, num_new: int, end: int) -> torch.Tensor:
    """What the newest `num_new` of `end` columns may look at, (B, 1, num_new, end), True where they may.

    transformers would build the same from a (B, end) mask anew at every step. A padding column sees itself: a row of all False
    has no softmax.
    """
    import torch

    if num_new == 1:
        return mask[:, None, None, :end].bool()
    causal = torch.ones((num_new, end), dtype=torch.bool, device=mask.device).tril(end - num_new)
    itself = torch.ones((num_new, end), dtype=torch.bool, device=mask.device).tril(end - num_new).triu(end - num_new)
    return (causal & mask[:, None, :end].bool())[:, None] | itself


def row_seed(seed: int, key: int) -> int:
    """A seed for one row: neighbouring seeds and keys must not share their streams."""
    x = (seed * 0x9E3779B97F4A7C15 + key * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1


def pick(logits: torch.Tensor, temperature: float, uniforms: torch.Tensor) -> torch.Tensor:
    """Token ids (B,) from logits (B, V): the most likely one, or by inverting the cumulated distribution at `uniforms` (B,)."""
    import torch

    if temperature == 0:
        return logits.argmax(-1)
    cumulated = torch.softmax(logits / temperature, -1).cumsum(-1, dtype=torch.float64)
    point = uniforms[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, point, right=True)[:, 0].clamp_max(logits.shape[-1] - 1)


def fixed_cache(config: Any, capacity: int) -> Any:
    """A KV cache that never copies what it holds: room for `capacity` tokens is taken once.

    Models with other than full attention (sliding windows, linear layers) get transformers' own growing cache.
    """
    from transformers import DynamicCache

    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return DynamicCache(config=config)
    past = DynamicCache()
    past.layers = [_fixed_layer()(capacity) for _ in range(text.num_hidden_layers)]
    return past


@cache
def _fixed_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class FixedLayer(DynamicLayer):  # type: ignore[misc]
        """`keys` and `values` are views (B, heads, tokens so far, head size) of buffers (B, heads, capacity, head size)."""

        def __init__(self, capacity: int) -> None:
            super().__init__()
            self.capacity = capacity
            self.end = 0

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if self.end == 0:
                rows, heads, _, size = key_states.shape
                self.key_buffer = key_states.new_empty((rows, heads, self.capacity, size))
                self.value_buffer = value_states.new_empty((rows, heads, self.capacity, value_states.shape[3]))
                self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            start, self.end = self.end, self.end + key_states.shape[2]
            self.key_buffer[:, :, start : self.end] = key_states
            self.value_buffer[:, :, start : self.end] = value_states
            return self._view()

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            self.key_buffer, self.value_buffer = self.key_buffer[indices], self.value_buffer[indices]
            self._view()

        def _view(self) -> tuple[torch.Tensor, torch.Tensor]:
            self.keys, self.values = self.key_buffer[:, :, : self.end], self.value_buffer[:, :, : self.end]
            return self.keys, self.values

    return FixedLayer
