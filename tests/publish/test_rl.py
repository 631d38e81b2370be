"""What is published of a run with reinforcement learning: the model that `rl` made, and a card that says so."""

import json

import pytest

from distill.recipe.model import Recipe
from distill.results.rl import RlMetrics, way_of
from distill.stages import RunContext
from distill.stages.push import dry_run
from distill.stages.table import STAGES
from distill.storage.fingerprints import fingerprint, sha256_of
from distill.storage.run_folder import Manifest, describe_outputs

RL = {"prompts_per_step": 2, "probe": {"problems": 2}, "reward": {"accuracy": 1, "format": 0.5}}


def finish_rl(run, make_student, revision):
    folder = run.folder("rl")
    make_student(folder.path / "student", num=4)
    identity = {"version": 1, "student": run.base_model.name, "student_revision": revision, "seed": 3}
    share = {"num_problems": 2, "num_answers": 2, "num_right": 1, "low": 0.0, "high": 1.0}
    metrics = RlMetrics(
        student=run.base_model.name,
        student_revision=revision,
        algorithm="grpo",
        loss="dapo",
        method="full",
        num_problems=6,
        num_steps=40,
        num_wanted_steps=40,
        prompts_per_step=2,
        group_size=16,
        learning_rate=3e-6,
        num_rollouts=1280,
        num_rollout_tokens=64_000,
        mean_reward=0.75,
        probe=[
            {"step": step, "pass_at_1": one, "mean_tokens": 9.0, "truncated": 0.0, **share}
            for step, one in ((0, 0.25), (40, 0.5))
        ],
    )
    folder.claim(identity)
    folder.complete(
        Manifest(
            stage="rl",
            fingerprint=fingerprint(identity),
            identity=identity,
            config=run.recipe.model_dump(mode="json")[STAGES["rl"].SECTION],
            outputs=describe_outputs(folder.path, {"student": None}),
            metrics=metrics.to_json(),
            versions={},
            hardware={"cpu": "AMD EPYC", "num_cores": 2, "memory_gib": 23.5, "gpus": [], "platform": "Linux"},
            git_commit=None,
            seconds=77.0,
            peak_memory_gib=1.0,
            finished_at="2026-01-01T00:00:00+00:00",
            recipe=run.recipe.model_dump(mode="json"),
        )
    )


def published(run):
    (model,) = [one for one in dry_run(run).publications if one.kind == "model"]
    return model


def test_the_student_of_rl_is_published_with_what_both_trainings_did(make_run, make_student, tmp_path):
    run = make_run(rl=RL, eval={"held_out": 2, "sampling": {"max_tokens": 512}})
    weights = run.folder("sft").manifest["outputs"]["student"]["sha256"]
    finish_rl(run, make_student, f"sft@{weights}")
    told = json.loads((run.run_dir / "eval/manifest.json").read_text())
    told["identity"]["student"] = run.folder("rl").manifest["outputs"]["student"]["sha256"]
    (run.run_dir / "eval/manifest.json").write_text(json.dumps(told))
    model = published(run)
    (weights_file,) = [file for file in model.files if file.path == "model.safetensors"]
    assert weights_file.sha256 == sha256_of(run.run_dir / "rl/student/model.safetensors")
    assert "Then it was improved by reinforcement learning in 40 steps on 6 problems." in model.card
    assert "### Reinforcement learning" in model.card
    assert "| reward | accuracy 1, format 0.5 |" in model.card
    assert "| held-out problems, before and after | 25.0%, 50.0% |" in model.card
    assert "| epochs |" in model.card
    assert "reinforcement-learning" in model.card


def test_a_base_that_was_only_reinforced_has_a_card_without_traces(base_model, make_student, tmp_path, filtered_run):
    tree = {
        "name": "zero",
        "student": str(base_model),
        "seed": 3,
        "problems": [{"source": f"file:{base_model.parent / 'sums.jsonl'}"}],
        "rl": {**RL, "probe": {"problems": 0}},
        "push": {"repo": "me/zero"},
    }
    run = RunContext(Recipe.model_validate(tree), tmp_path / "runs/zero")
    finish_rl(run, make_student, run.base_model.revision)
    model = published(run)
    assert "trained by reinforcement learning alone, in 40 steps on 6 problems." in model.card
    assert "No traces: the model was rewarded for its own answers." in model.card
    assert "| rows |" not in model.card
    assert "has not been measured" in model.card
    with pytest.raises(ValueError, match=r"push.dataset .* rl: trains on no rows"):
        Recipe.model_validate({**tree, "push": {"repo": "me/zero", "dataset": "me/rows"}})


def test_the_teachers_of_a_distilled_student_are_named():
    assert way_of("grpo", []) == "reinforcement learning"
    assert way_of("distill", ["org/one", "org/two"]) == "on-policy distillation from org/one and org/two"
    assert way_of("distill", []) == "on-policy distillation"  # recorded before teachers were
