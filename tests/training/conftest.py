"""Fixtures of the tests that train."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.recipe.sft import SftConfig
from distill.training.job import TrainJob
from distill.training.layout import Layout


@pytest.fixture(scope="session")
def tiny_qwen2(smollm2, tmp_path_factory) -> Path:
    """A randomly initialised two-layer Qwen2 (biases in its attention, untied head) with SmolLM2's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(smollm2.path)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    folder = tmp_path_factory.mktemp("tiny-qwen2")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_sums() -> Callable[[Path, int], None]:
    """A function that writes kept rows: sums whose thoughts differ in length."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(path: Path, num: int) -> None:
        thoughts = [f"<think>\n{'so ' * (i % 7)}{i} + 1\n</think>\n\n\\boxed{{{i + 1}}}" for i in range(num)]
        rows = [
            {
                "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
                "completion": [{"role": "assistant", "content": thought}],
            }
            for i, thought in enumerate(thoughts)
        ]
        path.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), path / "train-00000-of-00001.parquet")

    return write


@pytest.fixture
def make_job(tmp_path) -> Callable[..., TrainJob]:
    """A function that makes a job on `tmp_path/rows`, without tracking, whose folder is `tmp_path/<out>`."""

    def make(model: Path, out: str, layout: Layout, compute: dict[str, Any], **config: Any) -> TrainJob:
        (tmp_path / out).mkdir(exist_ok=True)
        sft = {"max_length": 256, "epochs": 2, "batch_size": 4, "compute": {"tracking": []} | compute}
        fields = {
            "model_name": "tiny",
            "model_path": str(model),
            "learning_rate": 1e-2,
            "rows": str(tmp_path / "rows"),
            "out_dir": str(tmp_path / out),
            "seed": 5,
            "owner": "test",
            "project": "test",
            "run_name": "sft",
            "keep_checkpoints": True,
            "layout": layout.to_json(),
            "config": SftConfig.model_validate(sft | config).model_dump(mode="json"),
        }
        left_out = {field.name: None for field in dataclasses.fields(TrainJob) if field.name not in fields}
        return TrainJob(**fields, **left_out)

    return make
