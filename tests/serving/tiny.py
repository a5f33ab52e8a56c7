"""Tiny real models for the model server's tests: a byte-level Qwen that has learnt one answer by heart, and a LoRA adapter
that has learnt another. Every Chinese character is three tokens, so half characters do occur on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BASE_ANSWER = "胸痛伴出汗，请立即拨打120。不要自行服药。"
ADAPTER_ANSWER = "<think>红旗征象</think>头痛突发，请马上去急诊。"
QUESTION = "胸痛怎么办？"
OTHER_QUESTION = "突然头痛怎么办？"

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", additional_special_tokens=["<|im_start|>"]
    )
    fast.chat_template = TEMPLATE
    return fast


def make_base(folder: Path) -> None:
    """Write a base that answers QUESTION with BASE_ANSWER (and OTHER_QUESTION with ADAPTER_ANSWER)."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    learn(model, tokenizer, {QUESTION: BASE_ANSWER, OTHER_QUESTION: ADAPTER_ANSWER}, num_steps=120)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_endless(base: Path, folder: Path) -> None:
    """Write a copy of the base that never ends an answer by itself and has room for a very long one."""
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    model = Qwen2ForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.eos_token = "<|im_start|>"  # which it has never seen anybody write
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.max_position_embeddings = 100_000
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_adapter(base: Path, folder: Path) -> None:
    """Write a LoRA adapter of the base that answers QUESTION with ADAPTER_ANSWER."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(r=16, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(Qwen2ForCausalLM.from_pretrained(base), config)
    learn(model, AutoTokenizer.from_pretrained(base), {QUESTION: ADAPTER_ANSWER}, num_steps=60)
    model.save_pretrained(folder)


def learn(model: Any, tokenizer: Any, answers: dict[str, str], *, num_steps: int) -> None:
    import torch

    batches = []
    for question, answer in answers.items():
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt + answer + tokenizer.eos_token, add_special_tokens=False, return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[:, : len(tokenizer(prompt, add_special_tokens=False)["input_ids"])] = -100
        batches.append((ids, labels))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(num_steps):
        loss = sum(model(input_ids=ids, labels=labels).loss for ids, labels in batches)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05, f"the tiny model has not learnt its answer: loss {loss.item():.3f}"
    model.eval()
