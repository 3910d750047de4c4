"""The tokenizer: CLIP's byte-pair encoding with a small vocabulary, learnt from captions; any text encodes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
"""Tokens per prompt when the model is used."""

SHORT = 32
"""Tokens per prompt in most of training: captions are shorter than this."""

MERGES = 600


def train(captions: Iterable[str], folder: Path) -> None:
    """Learn the merges and write the tokenizer's files."""
    merges = _learn(captions)
    alphabet = sorted(cast(Any, pre_tokenizers.ByteLevel).alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    (folder / "special_tokens_map.json").write_text(json.dumps(_SPECIAL, indent=2))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True, **_SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


_SPECIAL = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}


def _learn(captions: Iterable[str]) -> list[tuple[str, str]]:
    """The most useful merges of CLIP's own word splitting, in order."""
    clip = cast(Any, CLIPTokenizer()).backend_tokenizer
    learner = cast(Any, Tokenizer(BPE(end_of_word_suffix="</w>")))
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    alphabet = cast(Any, pre_tokenizers.ByteLevel).alphabet()
    trainer = cast(Any, trainers.BpeTrainer)(
        vocab_size=2 * 256 + MERGES, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    return [(str(a), str(b)) for a, b in json.loads(learner.to_str())["model"]["merges"]]


def load(folder: Path) -> CLIPTokenizer:
    return cast(CLIPTokenizer, cast(Any, CLIPTokenizer).from_pretrained(folder, local_files_only=True))


def tokens(tokenizer: CLIPTokenizer, texts: list[str], length: int = LENGTH) -> Int[Tensor, "count length"]:
    """Token numbers, cut or padded to `length`."""
    encoded = cast(Any, tokenizer)(texts, padding="max_length", max_length=length, truncation=True)
    return torch.tensor(encoded["input_ids"])
