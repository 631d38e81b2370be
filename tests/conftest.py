"""Fixtures that several test files share."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from distill.cli import main
from distill.core.progress import QUIET
from distill.engines.base import Completion, Request
from distill.evaluation import answers
from distill.evaluation.measured_sets import MeasuredSet
from distill.models.hub import Model, resolve_model
from distill.recipe.loading import load_recipe
from distill.recipe.model import Recipe
from distill.recipe.sampling import EvalSampling
from distill.results.eval import Protocol
from distill.sampling import judging
from distill.sampling.job import SamplingJob
from distill.sampling.loop import run_sampling
from distill.stages import RunContext, generate
from distill.storage.fingerprints import fingerprint
from distill.storage.run_folder import Manifest, describe_outputs

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Runs of the tests do not belong among the user's own.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="distill-trackio-")
# A shell that starts the tests in the background has them ignore Ctrl-C, and the commands under test inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a long or slow test once its time in the environment is up, so that CI ends in time on a slow machine."""
    for marker in ("long", "slow"):
        name = f"DISTILL_{marker.upper()}_TESTS_UNTIL"
        if item.get_closest_marker(marker) and time.time() > float(os.environ.get(name, "inf")):
            pytest.skip(f"no time is left for it ({name})")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest file first and long tests last. Skip GPU tests without a GPU, unless a CPU is to try them."""
    # The whole job takes minutes in one fixture: begun last, it would keep one worker busy while the other has nothing.
    items.sort(key=lambda item: (item.get_closest_marker("long") is not None, item.path.name != "test_full_path.py"))
    if os.environ.get("DISTILL_GPU_TESTS") == "cpu":
        return
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except OSError:
        listed = ""
    for item in items:
        if "GPU" not in listed and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Undo what the tested code sets in the environment, so that the order of tests does not matter."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


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

    @property
    def num_tokens_in_flight(self) -> int | None:
        return 0  # all of a sample's tokens come at once

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


class AnsweringEngine(FakeEngine):
    """Answers each request with what a function makes of it: a text, or a whole completion."""

    def __init__(self, answer: Callable[[Request], str | Completion], die_after: int | None = None) -> None:
        super().__init__([], die_after)
        self._answer = answer

    def step(self) -> list[Completion]:
        if self.die_after is not None and self.num_requests > self.die_after:
            raise KeyboardInterrupt
        if not self._in_flight:
            return []
        request = self._in_flight.pop()
        made = self._answer(request)
        if isinstance(made, str):
            made = Completion(request.key, made, "stop", 10, len(made.split()))
        return [made]


@pytest.fixture(scope="session")
def answering_engine() -> type[AnsweringEngine]:
    return AnsweringEngine


def make_measured_set(name: str = "sums", problems: Sequence[str] = (), k: int = 1, **changes: Any) -> MeasuredSet:
    """A benchmark of these problems that rules grade."""
    fields: dict[str, Any] = {
        "name": name,
        "samples_per_problem": k,
        "sampling": EvalSampling(max_tokens=64).model_dump(),
        "problems": list(problems),
        "metric": "pass@1",
        "canary": False,
        "style_control": False,
        "judge_template": None,
        "adaptive": None,
        "protocol": Protocol(suite=name, samples_per_problem=k).with_hash(),
    }
    return MeasuredSet(**fields | changes)


@pytest.fixture(scope="session")
def measured_set() -> Any:
    return make_measured_set


@pytest.fixture
def judged_by(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that has a judge answer with what a function makes of each request; the engine that was asked."""

    def use(answer: Callable[[Request], str | Completion]) -> AnsweringEngine:
        engine = AnsweringEngine(answer)
        monkeypatch.setattr(judging, "start_engine", lambda spec: engine)
        return engine

    return use


@pytest.fixture
def measuring(tmp_path: Path, model: Path) -> Any:
    """A function that makes a recipe that only measures; keyword arguments are keys of its `eval:`."""

    def make(*benchmarks: Any, models: Sequence[str] = (), **section: Any) -> Recipe:
        given = {"models": list(models) or [str(model)], "benchmarks": list(benchmarks), **section}
        given.setdefault("sampling", {"max_tokens": 64})
        return Recipe.model_validate({"name": "measured", "eval": given})

    return make


@pytest.fixture
def sums(tmp_path: Path) -> Any:
    """A function that writes sums as a benchmark, `What is 3 + 4?`; keyword arguments are further keys of it."""

    def make(name: str = "sums", num: int = 4, first: int = 0, **keys: Any) -> dict[str, Any]:
        rows = [{"problem": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1), "id": i} for i in range(first, num)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"source": f"file:{tmp_path / name}.jsonl", "columns": {"id": "id"}, **keys}

    return make


@pytest.fixture(scope="session")
def adds() -> Callable[[Request], str]:
    """The right answer to `What is 3 + 4?`."""

    def answer(request: Request) -> str:
        return f"\\boxed{{{sum(map(int, re.findall(r'[0-9]+', request.messages[-1]['content'])))}}}"

    return answer


@pytest.fixture
def sampled_by(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that has evaluations sample in this process, with the engine that a function makes for each job.

    It returns the list of the engines that were used, one a model.
    """

    def use(make: Callable[[SamplingJob], FakeEngine]) -> list[FakeEngine]:
        used: list[FakeEngine] = []

        def run_job(kind: str, job: SamplingJob, folder: Path, drain_s: float = 0.0) -> tuple[dict[str, Any], float]:
            assert kind == "sample"
            job = SamplingJob(**json.loads(json.dumps(asdict(job))))  # as a child process gets it
            used.append(make(job))
            return run_sampling(job, used[-1]), 0.1

        monkeypatch.setattr(answers, "run_job", run_job)
        return used

    return use


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


ANSWER = "<think>\n3 + 4 = 7\n</think>\n\nThe answer is \\boxed{7}."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test in a folder of its own, and the process afterwards as before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv(QUIET, "")
    monkeypatch.setenv("NO_COLOR", "1")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def distill(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that is the command: its arguments in, exit code, standard output and standard error out."""

    def call(*args: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["distill", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that passes for a model as long as nobody loads it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")  # no tensors
    return folder


@pytest.fixture
def recipe(tmp_path: Path, model: Path) -> Path:
    """`recipe.yaml`: two sums, and a teacher that is also the student."""
    rows = [{"problem": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in (3, 4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: small\n"
        f"student: {model}\n"
        "problems:\n"
        "  - source: file:sums.jsonl\n"
        "generate:\n"
        f"  teacher: {model}\n"
        "  samples_per_problem: 2\n"
        "  sampling: {max_tokens: 16}\n"
        "filter: {compute: {workers: 1}}\n"
        "sft: {max_length: 256}\n"
    )
    return path


@pytest.fixture(scope="session")
def finish_generate() -> Any:
    """A function that does what the runner does with generate, with an engine of the test's; the run."""

    def finish(recipe: Recipe, runs: Path, engine: FakeEngine, seconds: float = 1.0) -> RunContext:
        run = RunContext(recipe, runs / recipe.name)
        folder = run.folder("generate")
        identity = generate.identity(run)
        folder.claim(identity)
        summary = generate.run(run, engine)
        folder.complete(
            Manifest(
                stage="generate",
                fingerprint=fingerprint(identity),
                identity=identity,
                config={},
                outputs=describe_outputs(folder.path, summary.outputs),
                metrics=summary.metrics,
                versions={},
                hardware={},
                git_commit=None,
                seconds=seconds,
                peak_memory_gib=0.1,
                finished_at="2026-01-01T00:00:00+00:00",
            )
        )
        return run

    return finish


@pytest.fixture
def generated(recipe: Path, tmp_path: Path, fake_engine: type[FakeEngine], finish_generate: Any) -> Path:
    """The recipe, with its first stage complete in `runs/small/`."""
    finish_generate(load_recipe(recipe), tmp_path / "runs", fake_engine([ANSWER]))
    return recipe


DOCS = Path(__file__).parents[1] / "docs"
KINDS = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}
Row = tuple[tuple[str, ...], bool]
"""Types that a key may have, and whether it may be missing."""


def documented_shapes() -> dict[str, dict[str, Row]]:
    """The tables in docs/*.md under headings that name a command with `--json` or a shape: key -> what it may be."""
    shapes: dict[str, dict[str, Row]] = {}
    for page in sorted(DOCS.glob("*.md")):
        table: dict[str, Row] | None = None
        for line in page.read_text().splitlines():
            if line.startswith("#"):
                heading = line.lstrip("# ")
                names = re.findall(r"`([^`]+)`", heading) or [heading]
                table = {} if any("--json" in name or name == "error" for name in names) or heading.isalpha() else None
                if table is not None:
                    shapes |= dict.fromkeys(names, table)
            elif table is not None and (cells := re.match(r"\| `([^`]+)` \| ([^|]+) \|", line)):
                kinds, _, optional = cells[2].strip().partition(", optional")
                table[cells[1]] = tuple(kinds.strip().split(" or ")), optional == "" and ", optional" in cells[2]
    return {name: table for name, table in shapes.items() if table}


def check_shape(value: Any, table: dict[str, Row], shapes: dict[str, dict[str, Row]], at: str = "") -> None:
    """Hold a value to a table: every key is documented, every key that must be there is, and types are those said."""

    def children(path: str) -> set[str]:
        start = f"{path}." if path else ""
        return {key[len(start) :] for key in table if key.startswith(start) and not set(".[") & set(key[len(start) :])}

    def check(value: Any, path: str) -> None:
        where = f"{at}{path}"
        if path:
            kinds, _ = table[path]
            kind = KINDS[type(value)]
            named = [name for name in kinds if name[0].isupper()]
            if named and kind == "object":
                check_shape(value, shapes[named[0]], shapes, f"{where}: {named[0]}.")
                return
            assert {"any", kind, *(["number"] if kind == "integer" else [])} & set(kinds), (
                f"{where} is {kind}, not {kinds}"
            )
        if isinstance(value, list) and f"{path}[]" in table:
            for one in value:
                check(one, f"{path}[]")
        if isinstance(value, dict) and (known := children(path)):
            needed = {name for name in known if name != "*" and not table[f"{path}.{name}" if path else name][1]}
            assert needed <= value.keys(), f"{where} lacks {needed - value.keys()}"
            for key, one in value.items():
                name = key if key in known else "*"
                assert name in known, f"{where}: {key} is not documented"
                check(one, f"{path}.{name}" if path else name)

    check(value, "")


@pytest.fixture(scope="session")
def documented() -> Any:
    """A function that holds a command's JSON, or a shape, to its table in docs/."""
    shapes = documented_shapes()

    def hold(command: str, value: Any) -> None:
        assert "--json" not in command or value["schema_version"] == 1
        check_shape(value, shapes[command], shapes)

    hold.commands = set(shapes)  # type: ignore[attr-defined]
    return hold
