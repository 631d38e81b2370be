"""A local Hub, and a run that is finished without a model having been trained."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from distill.recipe.model import Recipe
from distill.results.sft import Device, SftMetrics
from distill.runs.runner import run_recipe
from distill.stages import RunContext, generate
from distill.stages.table import STAGES
from distill.storage.fingerprints import fingerprint
from distill.storage.run_folder import Manifest, describe_outputs

TOKEN = "hf_test_canary_0123456789abcdef"
RIGHT = "<think>\n3 + 4 = 7\n</think>\n\nThe answer is \\boxed{7}."
PROTOCOL = {
    "samples_per_problem": 4,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 0,
    "max_tokens": 512,
    "engine": "transformers 5.17.0",
    "extraction": "last \\boxed, else final-answer phrase, else last number; cut-off answers: \\boxed only",
    "interval": "95%, percentile bootstrap over problems, 10,000 resamples",
}


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


hub_server = _load("hub_server")


@pytest.fixture
def hub(monkeypatch):
    """A Hub on loopback that the client takes for the Hub, with a token in the environment."""
    from huggingface_hub import constants

    with hub_server.Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def Fault():  # noqa: N802 - it is the class
    return hub_server.Fault


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client and we would have waited; nobody waits."""
    import time

    found = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def score(value, low, high, num=200):
    return {
        "model": "org/model",
        "num_problems": num,
        "samples_per_problem": 4,
        "pass_at_1": value,
        "interval_95": [low, high],
        "truncated_share": 0.015,
        "num_ungraded": 0,
        "mean_completion_tokens": 55.5,
    }


SCORES = {
    "base": score(0.06, 0.03, 0.095),
    "student": score(0.445, 0.375, 0.515),
    "difference": {"pass_at_1": 0.385, "interval_95": [0.31, 0.46], "num_gained": 80, "num_lost": 3},
}


def complete(run, stage, identity, outputs, metrics, seconds=61.0):
    """What the runner writes at a stage's end."""
    folder = run.folder(stage)
    folder.claim(identity)
    folder.complete(
        Manifest(
            stage=stage,
            fingerprint=fingerprint(identity),
            identity=identity,
            config=run.recipe.model_dump(mode="json")[STAGES[stage].SECTION],
            outputs=describe_outputs(folder.path, outputs),
            metrics=metrics,
            versions={"python": "3.11.2", "torch": "2.13.0", "trl": "1.16.0"},
            hardware={"cpu": "AMD EPYC", "num_cores": 2, "memory_gib": 23.5, "gpus": [], "platform": "Linux"},
            git_commit=None,
            seconds=seconds,
            peak_memory_gib=1.25,
            finished_at="2026-01-01T00:00:00+00:00",
        )
    )


def make_student(folder, num=3):
    """A folder such as training leaves: safetensors, tokenizer, template, configs."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file({"w": np.arange(num * 1000, dtype=np.float32)}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512})
    )
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def make_adapter(folder, base):
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file({"a": np.ones(10, dtype=np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "r": 8}))
    (folder / "README.md").write_text("peft's card")
    return folder


@pytest.fixture(scope="session")
def base_model(tmp_path_factory):
    """A folder that passes for a model as long as nobody loads it."""
    folder = tmp_path_factory.mktemp("models") / "SmallBase"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    (folder / "LICENSE").write_text("Apache License\n")
    return folder


def recipe_tree(base_model, sections):
    """A small recipe that publishes; its problems lie beside the model."""
    return {
        "name": "small",
        "student": str(base_model),
        "seed": 3,
        "description": "Small sums.",
        "problems": [{"source": f"file:{base_model.parent / 'sums.jsonl'}"}],
        "generate": {"teacher": str(base_model), "samples_per_problem": 3, "sampling": {"max_tokens": 16}},
        "filter": {"compute": {"workers": 1}, "decontaminate": [f"file:{base_model.parent / 'exam.jsonl'}"]},
        "sft": {"max_length": 256, "batch_size": 2},
        "eval": {"held_out": 2, "sampling": {"max_tokens": 512}},
        "push": {"repo": "me/small"},
        **sections,
    }


@pytest.fixture(scope="session")
def filtered_run(tmp_path_factory, base_model, fake_engine):
    """A run folder whose traces are sampled (from a list) and filtered for real."""
    rows = [{"problem": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(8)]
    write_rows(base_model.parent / "sums.jsonl", rows)
    exam = [{"problem": "What is 5 + 6?", "answer": "11"}, {"problem": "Name the largest prime below 100."}]
    write_rows(base_model.parent / "exam.jsonl", exam)
    recipe = Recipe.model_validate(recipe_tree(base_model, {"eval": {"held_out": 2, "sampling": {"max_tokens": 512}}}))
    runs = tmp_path_factory.mktemp("filtered")
    run = RunContext(recipe, runs / recipe.name)
    identity = generate.identity(run)
    run.folder("generate").claim(identity)
    summary = generate.run(run, fake_engine([RIGHT, "no idea", "<think>\nhm"]))
    complete(run, "generate", identity, summary.outputs, summary.metrics)
    run_recipe(recipe, runs, ["filter"])
    return run.run_dir


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def make_run(tmp_path, base_model, filtered_run):
    """A function that makes a finished run of a recipe; keyword arguments replace the recipe's sections."""

    def make(benchmarks=("held-out",), **sections):
        recipe = Recipe.model_validate(recipe_tree(base_model, sections))
        run = RunContext(recipe, tmp_path / "runs" / recipe.name)
        shutil.copytree(filtered_run, run.run_dir)
        for stage in ("generate", "filter"):
            retell(run, stage, config=recipe.model_dump(mode="json")[STAGES[stage].SECTION])
        finish_training(run)
        if recipe.eval is not None:
            finish_eval(run, benchmarks)
        return run

    return make


def retell(run, stage, **changes):
    """Change what a manifest tells; a dict changes keys of its dict."""
    path = run.folder(stage).path / "manifest.json"
    manifest = json.loads(path.read_text())
    for key, value in changes.items():
        manifest[key] = {**manifest[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(manifest))


@pytest.fixture(name="retell")
def _retell():
    return retell


def finish_training(run):
    filtered, folder = run.folder("filter").manifest, run.folder("sft").path
    make_student(folder / "student")
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.1}\n')
    outputs = {"student": None, "metrics.jsonl": 1}
    lora = run.recipe.sft.method != "full"
    if lora:
        make_adapter(folder / "adapter", str(run.student_model.path))
        outputs["adapter"] = None
    identity = {
        "version": 1,
        "student": run.student_model.name,
        "student_revision": run.student_model.revision,
        "seed": run.recipe.seed,
        "rows": filtered["outputs"]["kept"]["sha256"],
    }
    device = {"attention": "sdpa", "packs": True, "kernels": True, "gradient_checkpointing": False}
    metrics = SftMetrics(
        student=run.student_model.name,
        student_revision=run.student_model.revision,
        method=run.recipe.sft.method,
        num_rows=filtered["metrics"]["num_kept"],
        epochs=run.recipe.sft.epochs,
        batch_size=run.recipe.sft.batch_size,
        learning_rate=5e-5,
        num_tokens=2100,
        num_trained_tokens=1500,
        num_steps=6,
        final_loss=0.4321,
        device=Device(on_gpu=False, dtype="float32", **device),
        history=[{"step": 1, "loss": 2.125}, {"step": 6, "loss": 0.4321}],
    )
    complete(run, "sft", identity, outputs, metrics.to_json(), seconds=301)


def finish_eval(run, names=("held-out",)):
    student = run.folder("sft").manifest["outputs"]["student"]["sha256"]
    metrics = {**SCORES, "benchmarks": [{"name": name, **SCORES} for name in names], "protocol": PROTOCOL}
    complete(run, "eval", {"student": student}, {}, metrics)


@pytest.fixture(name="make_student", scope="session")
def _make_student():
    return make_student
