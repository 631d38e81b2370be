"""Models with random weights, and a tokenizer that needs no download: for machines without the Hub, and for sizes.

A `ModelShape` becomes a model, or a folder that transformers, vLLM and distill load like any other. Time and memory of
a model do not depend on what its weights are; what it says does, and is noise.

    path = save_random_model(HALF_BILLION, Path("model"))
"""

from pathlib import Path
from typing import Any

from distill.models.shapes import ModelShape

TINY = ModelShape(64, 2, 2, 1, 32, 128, 512, tied=True)
SMALL = ModelShape(512, 8, 8, 4, 64, 1_408, 49_152, tied=True)
"""50M parameters."""
HALF_BILLION = ModelShape(896, 24, 14, 2, 64, 4_864, 151_936, tied=True, qkv_bias=True)
"""Qwen2.5-0.5B's."""

NUM_WORDS = 500
"""Tokens of `make_tokenizer`'s vocabulary, at most."""
CONTEXT = 32_768
TEMPLATE = Path(__file__).parents[1] / "distill" / "models" / "templates" / "chatml.jinja"
STOP, PAD = "<|im_end|>", "<|endoftext|>"
SAYINGS = (
    "What is the sum of these numbers? Think step by step, then put the final answer in a box.",
    "Jill has 12 apples and gives 5 of them to Tom. How many apples does she have left?",
    "<think>\nFirst, 12 - 5 = 7.\nSo there are 7 apples left.\n</think>\n\nThe answer is \\boxed{7}.",
)
"""What the tokenizer's merges are learnt from."""


def random_model(shape: ModelShape, dtype: str = "float32") -> Any:
    """A causal language model of that shape, made on torch's default device."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

    kind: Any = Qwen2Config if shape.qkv_bias else Qwen3Config if shape.qk_norm else LlamaConfig
    config = kind(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))


def save_random_model(shape: ModelShape, folder: Path, seed: int = 0, dtype: str = "bfloat16") -> Path:
    """Make a model with `make_tokenizer`'s tokenizer and save both; the folder.

    Args:
        shape: the model's.
        folder: is made.
        seed: of the weights.
        dtype: in which they are saved.
    """
    import torch

    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = random_model(shape, dtype)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """A byte-level tokenizer that keeps digits apart, with ChatML's turns; learnt from a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_WORDS,
        special_tokens=[PAD, STOP, "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SAYINGS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=STOP,
        pad_token=PAD,
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE.read_text()
    return fast
