"""Fixtures that several test files share."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from distill.engines import Completion, Request
from distill.hub import Model, resolve_model
from distill.recipe import Recipe

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Runs of the tests do not belong among the user's own.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="distill-trackio-")
# A shell that starts the tests in the background has them ignore Ctrl-C, and the commands under test inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests are skipped where nvidia-smi finds no GPU."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except OSError:
        listed = ""
    for item in items:
        if "GPU" not in listed and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """The small real model that `make test` fetches."""
    return resolve_model(SMOLLM2)


@pytest.fixture(scope="session")
def tiny_llama(smollm2: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised two-layer Llama with SmolLM2's tokenizer and chat template."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(smollm2.path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class FakeEngine:
    """Answers from a list, the last submitted first, so that arrival order differs from identity order."""

    settings: dict[str, Any] = {"name": "fake", "version": "1"}  # noqa: RUF012 - a constant of the test
    max_in_flight = 3

    def __init__(self, answers: list[str], die_after: int | None = None) -> None:
        self.answers, self.die_after = answers, die_after
        self.requests: list[Request] = []
        self._in_flight: list[Request] = []

    @property
    def num_requests(self) -> int:
        return len(self.requests)

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    def submit(self, request: Request) -> Completion | None:
        self.requests.append(request)
        if "too long" in request.messages[-1]["content"]:
            return Completion(request.key, "", "error", 9_999, 0, error="the prompt has 9999 tokens")
        self._in_flight.append(request)
        return None

    def close(self) -> None:
        self._in_flight.clear()

    def step(self) -> list[Completion]:
        if self.die_after is not None and self.num_requests > self.die_after:
            raise KeyboardInterrupt
        if not self._in_flight:
            return []
        request = self._in_flight.pop()
        text = self.answers[request.key[1] % len(self.answers)]
        return [Completion(request.key, text, "stop", 10, len(text.split()))]


@pytest.fixture(scope="session")
def fake_engine() -> type[FakeEngine]:
    return FakeEngine


def write_problems(path: Path, num: int) -> Path:
    """`num` sums as JSONL: `What is 3 + 4?` with the answer 7."""
    rows = [{"problem": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(num)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def make_recipe(tmp_path: Path, tiny_llama: Path) -> Any:
    """A function that makes a small recipe on local files; keyword arguments replace its sections."""

    def make(num_problems: int = 6, **sections: Any) -> Recipe:
        source = write_problems(tmp_path / f"problems-{num_problems}.jsonl", num_problems)
        base: dict[str, Any] = {
            "name": "small",
            "student": str(tiny_llama),
            "seed": 3,
            "problems": [{"source": f"file:{source}"}],
            "generate": {
                "teacher": str(tiny_llama),
                "samples_per_problem": 2,
                "sampling": {"temperature": 0.8, "top_p": 1.0, "max_tokens": 16},
            },
            "filter": {"compute": {"workers": 1}},
            "sft": {"max_length": 256, "epochs": 2, "batch_size": 2},
        }
        return Recipe.model_validate(base | sections)

    return make
