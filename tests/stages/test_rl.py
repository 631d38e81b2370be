"""`rl` as a stage: what its job is given, what it leaves, what is made again after which change. Nothing is trained."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from distill.core.records import Problem
from distill.core.thinking import split_reasoning
from distill.errors import ModelError, ProblemError, RecipeError, StoreError, UserError
from distill.estimates.machine import this_machine
from distill.estimates.prices import load_prices
from distill.grading import grade
from distill.models.tokenizers import load_tokenizer, render_prompt
from distill.publish.lock import read_lock
from distill.recipe.lineage import changed_settings
from distill.recipe.model import Recipe
from distill.results.kinds import fault_of
from distill.results.rl import RlMetrics
from distill.runs import rl_check
from distill.runs.recipe_checks import recipe_probes
from distill.runs.results import write_report
from distill.runs.rl_check import check_rl
from distill.runs.rounds_plan import plan_any
from distill.runs.runner import run_recipe
from distill.stages import RunContext, contexts_of, import_traces, rl, sft
from distill.stages.push import made_from
from distill.storage.files import read_json, read_jsonl, write_jsonl
from distill.storage.fingerprints import fingerprint
from distill.storage.run_folder import Manifest, describe_outputs
from distill.storage.trace_store import stored_traces
from distill.training.rl.job import RlJob
from distill.training.rl.rollouts import Rollout, RolloutFiles

RL = {"steps": 3, "prompts_per_step": 2, "group_size": 2, "probe": {"problems": 2}, "max_tokens": 32}
CHECKED = {
    "num_problems": 2,
    "num_answers": 8,
    "parts": {"accuracy": 0.25, "format": 0.0},
    "mean_reward": 0.25,
    "groups_with_variance": 0.05,
    "right": 0.25,
    "truncated": 0.75,
    "mean_tokens": 20.0,
    "tokens_per_second": 100.0,
    "seconds_per_step": 3.0,
    "hours": 0.5,
    "examples": [{"problem_id": "a", "text": "The answer\nis 7.", "reward": 1.0}],
}


@pytest.fixture
def reinforce(monkeypatch, tiny_llama):
    """Has the stage train nothing: a fake of its job leaves another student each time. The jobs that it was given."""
    jobs = []

    def run_job(kind, job, folder, drain_s=0.0, num_processes=1, is_group=False, leader=None):
        assert kind == "train_rl"
        job = RlJob(**json.loads(json.dumps(asdict(job))))  # as a child process gets it
        jobs.append(job)
        if job.only_check:
            return CHECKED, 0.1
        out = Path(job.out_dir)
        for name in ("student", "best"):
            shutil.copytree(tiny_llama, out / name)
            (out / name / "note.txt").write_text(str(len(jobs)))
        write_answers(out / "rollouts", *(read_jsonl(Path(name)) for name in (job.problems, job.probe)))
        write_jsonl(out / "metrics.jsonl", [{"step": n, "reward": 0.1 * n} for n in (1, 2, 3)])
        return {
            "num_steps": 3,
            "num_rollouts": 12,
            "num_ungraded": 0,
            "num_rollout_tokens": 120,
            "mean_reward": 0.25,
            "probe": [point(0, 0.0), point(3, 0.5)],
            "best_step": 3,
            "warnings": [],
            "stopped_by": None,
            "tokens_per_second": 10.0,
            "seconds_per_step": 2.0,
            "resumed_from_step": None,
            "device": None,
            "gpu_peak_gib": None,
        }, 0.1

    for module in (rl, rl_check):
        monkeypatch.setattr(module, "run_job", run_job)
    return jobs


def write_answers(folder, problems, probe):
    """The rollouts of three steps: of each problem one right and two wrong answers, one of them cut off."""
    answers = [
        ("{0}, so that is what it makes.</think>\n\nThe answer is \\boxed{{{0}}}.", "stop"),
        ("No idea at all, to be honest.</think>\n\nThe answer is \\boxed{{0}}.", "stop"),
        ("{0} may be", "length"),
    ]
    files = RolloutFiles(folder)
    for kind, step, asked in (("step", 0, problems[:3]), ("step", 1, problems[3:]), ("step", 2, problems[:2]),
                              ("probe", 0, probe)):  # fmt: skip
        found = [
            Rollout(step, slot, 0, slot, one["id"], index, 100 * step + index, f"{step}" * 4, [1, 2, 3], [4] * 9,
                    [-0.5] * 9, [], text.format(one["answer"]), True, reason)
            for slot, one in enumerate(asked) for index, (text, reason) in enumerate(answers)
        ]  # fmt: skip
        files.write(kind, step, found)
    files.write("step", 3, found)
    files.set_aside("step", 3)


def point(step, share):
    counts = {"num_problems": 2, "num_answers": 2, "num_right": round(2 * share), "num_ungraded": 0}
    return {"step": step, **counts, "pass_at_1": share, "low": 0.0, "high": 1.0, "mean_tokens": 5.0, "truncated": 0.0}


@pytest.fixture
def make(make_recipe):
    """A function that makes a recipe of `rl:` alone; keyword arguments replace its sections."""

    def recipe(num_problems=8, **sections):
        plain = {"generate": None, "rl": RL, "eval": {"held_out": 2, "sampling": {"max_tokens": 16}}}
        return make_recipe(num_problems, **{**plain, **sections})

    return recipe


def test_the_job_gets_problems_probe_and_settings_and_the_stage_records_them(make, tmp_path, reinforce):
    said = []
    summary = run_recipe(make(), tmp_path / "runs", ["rl"], say=said.append)
    (job,) = reinforce
    folder = tmp_path / "runs/small/rl"
    problems, probe = (read_jsonl(Path(name)) for name in (job.problems, job.probe))
    assert (len(problems), len(probe)) == (6, 2)
    assert not {one["id"] for one in problems} & {one["id"] for one in probe}
    assert job.config["steps"] == 3
    assert job.solved == {}
    assert (job.chat_template, job.seed, job.only_check) == (None, 3, False)
    assert job.layout["per_device_batch_size"] * job.layout["accumulation"] == 4
    manifest = read_json(folder / "manifest.json")
    assert fault_of(manifest, "rl") == ""
    assert manifest["outputs"].keys() == {
        *("student", "best", "rollouts", "metrics.jsonl", "problems.jsonl", "probe.jsonl")
    }
    assert summary["rl"]["num_problems"] == 6
    assert summary["rl"]["probe"][1]["pass_at_1"] == 0.5
    assert "rl: 3 steps, 12 rollouts, reward 0.250, held out 0.0% -> 50.0%" in said[-1]


def test_a_second_run_skips_and_another_setting_is_refused(make, tmp_path, reinforce):
    run_recipe(make(), tmp_path / "runs", ["rl"])
    run_recipe(make(rl={**RL, "compute": {"sampling": {"cpu_threads": 1}}}), tmp_path / "runs", ["rl"])
    assert len(reinforce) == 1
    with pytest.raises(StoreError, match=r"(?s)rl.*kl: 0.001 -> 0"):
        run_recipe(make(rl={**RL, "kl": 0.0}), tmp_path / "runs", ["rl"])
    run_recipe(make(rl={**RL, "kl": 0.0}), tmp_path / "runs", ["rl"], force=True)
    assert len(reinforce) == 2


def test_a_damaged_student_is_trained_again_only_with_force(make, tmp_path, reinforce):
    run_recipe(make(), tmp_path / "runs", ["rl"])
    (tmp_path / "runs/small/rl/student/model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"`distill rl --force` trains again"):
        run_recipe(make(), tmp_path / "runs", ["rl"])
    run_recipe(make(), tmp_path / "runs", ["rl"], force=True)
    assert len(reinforce) == 2


def test_eval_measures_what_rl_made(make, tmp_path, reinforce, sampled_by, fake_engine):
    used = []

    def engine(job):
        used.append(job.model_path)
        return fake_engine(["\\boxed{7}"])

    sampled_by(engine)
    summary = run_recipe(make(), tmp_path / "runs")
    assert used[1] == str(tmp_path / "runs/small/rl/student")
    assert summary["eval"]["student"]["num_problems"] == 2
    weights = read_json(tmp_path / "runs/small/rl/manifest.json")["outputs"]["student"]["sha256"]
    assert read_json(tmp_path / "runs/small/eval/identity.json")["student"] == weights
    assert "Reinforce" in (tmp_path / "runs/small/report.html").read_text()


def test_eval_refuses_a_student_that_was_reinforced_on_what_is_held_out_now(make, tmp_path, reinforce):
    run_recipe(make(), tmp_path / "runs", ["rl"])
    other = make(eval={"held_out": 3, "sampling": {"max_tokens": 16}})
    with pytest.raises(UserError, match="under another split of the problems"):
        run_recipe(other, tmp_path / "runs", ["eval"])


def without_template(model, folder):
    """A copy of a model as base models are published: without a chat template."""
    shutil.copytree(model, folder)
    config = read_json(folder / "tokenizer_config.json")
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def test_too_few_problems_and_a_base_without_a_template_are_refused_before_anything(make, tmp_path, tiny_llama):
    wide = make(rl={**RL, "prompts_per_step": 7})
    with pytest.raises(ProblemError, match=r"rl.prompts_per_step \(7\) exceeds the 6 problems that can be trained on"):
        rl.prepare(RunContext(wide, tmp_path / "runs/small"), lambda: True)
    long = make(rl={**RL, "max_tokens": 512})
    with pytest.raises(ModelError, match=r"rl.max_tokens \(512\) leaves no room for a prompt in the context of"):
        rl.prepare(RunContext(long, tmp_path / "runs/small"), lambda: True)
    base = without_template(tiny_llama, tmp_path / "base")
    with pytest.raises(ModelError, match=r"rl.prompt_format: .* has no chat template. Set rl.prompt_format: r1-zero"):
        rl.prepare(RunContext(make(student=str(base)), tmp_path / "runs/small"), lambda: True)
    zero = RunContext(make(student=str(base), rl={**RL, "prompt_format": "r1-zero"}), tmp_path / "runs/small")
    rl.prepare(zero, lambda: True)
    job = rl.rl_job(zero, tmp_path)
    tokenizer = load_tokenizer(base, None, None, job.chat_template)
    prompt = render_prompt(tokenizer, [{"role": "user", "content": "What is 3 + 4?"}])
    assert prompt.endswith("<answer> answer here </answer>. User: What is 3 + 4?. Assistant:")
    assert prompt.count("A conversation between User and Assistant.") == 1
    assert tokenizer.eos_token in load_tokenizer(base, None, None, job.chat_template).all_special_tokens


def written(recipe, path):
    path.write_text(json.dumps(recipe.model_dump(mode="json")))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"reward": {"accuracy": 0, "format": 0, "code": 1}},
            "rl.reward: no part of the reward can vary: rl.reward.code",
        ),
        ({"reward": {"accuracy": 0, "format": 0}}, "rl.reward: no part of the reward has a weight"),
        ({"reward": {"accuracy": 0, "format": 0, "judge": 1}}, "rl.reward.judge needs a judge"),
        ({"prompts_per_step": 7}, "rl.prompts_per_step (7) exceeds the 6 problems that can be trained on"),
        ({"probe": {"problems": 3}}, "rl.probe.problems (3) exceeds eval.held_out (2)"),
        ({"group_size": 1}, "rl.group_size"),
        ({"max_tokens": 512}, "rl.max_tokens (512) leaves no room for a prompt"),
        ({"difficulty": {"low": 0.5, "high": 0.5}}, "low (0.5) must be below high (0.5)"),
        ({"algorithm": "distill"}, "algorithm: distill needs teachers:"),
        ({"algorithm": "distill", "teachers": ["./no-such-folder"]}, "no-such-folder"),
        ({"trl": {"beta": 1}}, "trl: beta is set by distill itself"),
    ],
)
def test_mistakes_are_said_before_anything_starts(make, tmp_path, reinforce, distill, here, changes, said):
    path = written(make(), tmp_path / "recipe.yaml")
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "rl": RL | changes}))
    code, _, err = distill("rl", path)
    assert (code, said in " ".join(err.split())) == (2, True), err
    assert reinforce == []


def test_with_teachers_alone_the_reward_need_not_vary(make, tmp_path, tiny_llama):
    same = {"accuracy": 0, "format": 0, "code": 1}
    taught = {**RL, "algorithm": "distill", "teachers": [str(tiny_llama)], "reward": same}
    rl.prepare(RunContext(make(rl=taught), tmp_path / "runs/small"), lambda: True)
    with pytest.raises(RecipeError, match=r"rl.reward: no part of the reward can vary: rl.reward.code does not apply"):
        rl.prepare(RunContext(make(rl={**taught, "task_weight": 0.1}), tmp_path / "runs/small"), lambda: True)


def test_a_teacher_with_other_tokens_is_said_before_anything_is_sampled(
    make, tmp_path, tiny_llama, reinforce, distill, here
):
    other = shutil.copytree(tiny_llama, tmp_path / "other")
    tokenizer = read_json(other / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    one, two = list(vocabulary)[500:502]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    taught = {**RL, "algorithm": "distill", "teachers": [str(tiny_llama), str(other)]}
    code, _, err = distill("rl", written(make(rl=taught), tmp_path / "recipe.yaml"))
    assert (code, reinforce) == (2, []), err
    assert f"rl.teachers: {other} has another tokenizer than the student: token " in " ".join(err.split())


def test_a_base_without_a_template_is_said_by_the_command_and_the_doctor(
    make, tmp_path, tiny_llama, reinforce, distill, here
):
    base = without_template(tiny_llama, tmp_path / "base")
    path = written(make(student=str(base)), tmp_path / "recipe.yaml")
    said = f"rl.prompt_format: {base} has no chat template. Set rl.prompt_format: r1-zero"
    code, _, err = distill("rl", path)
    assert (code, said in " ".join(err.split())) == (2, True), err
    checks = [one for probe in recipe_probes(make(student=str(base)), tmp_path, "r") if probe.name == "student"
              for one in probe.look()]  # fmt: skip
    assert [one.status for one in checks] == ["ok", "missing"]
    assert said in checks[1].said
    zero = make(student=str(base), rl={**RL, "prompt_format": "r1-zero"})
    checks = [one for probe in recipe_probes(zero, tmp_path, "r") if probe.name == "student" for one in probe.look()]
    assert [one.status for one in checks] == ["ok"]


def test_a_judge_that_decides_alone_is_warned_of(make, tmp_path, reinforce, distill, here):
    by = {"model": "j", "compute": {"base_urls": ["http://127.0.0.1:9/v1"]}}
    judged = make(rl={**RL, "reward": {"accuracy": 0, "judge": {"by": by}}})
    code, _, err = distill("rl", written(judged, tmp_path / "recipe.yaml"))
    assert code == 0, err
    assert "rl.reward: a judge alone decides what is right" in " ".join(err.split())


def finish_sft(run, note):
    """A training on the kept rows that is complete without anything having been trained."""
    folder = run.folder("sft")
    made = folder.path / "student"
    shutil.copytree(run.student_model.path, made)
    (made / "note.txt").write_text(note)
    identity = sft.identity(run)
    folder.claim(identity)
    folder.complete(
        Manifest(
            stage="sft",
            fingerprint=fingerprint(identity),
            identity=identity,
            config={},
            outputs=describe_outputs(folder.path, {"student": None}),
            metrics={
                "student": run.student_model.name,
                "student_revision": run.student_model.revision,
                "method": "full",
                "num_rows": 1,
                "epochs": 2.0,
                "batch_size": 2,
                "learning_rate": 1e-5,
                "num_tokens": 10,
                "num_trained_tokens": 5,
                "num_steps": 1,
                "final_loss": 1.0,
            },
            versions={},
            hardware={},
            git_commit=None,
            seconds=1.0,
            peak_memory_gib=0.1,
            finished_at="2026-01-01T00:00:00+00:00",
            recipe=run.recipe.model_dump(mode="json"),
        )
    )


@pytest.fixture
def trained(make_recipe, tmp_path, fake_engine, finish_generate):
    """A function that makes a recipe with sft: and rl:; its traces are filtered, and its student is trained."""

    def make(**sections):
        recipe = make_recipe(8, **{"eval": {"held_out": 2, "sampling": {"max_tokens": 16}}, "rl": RL, **sections})
        if not (tmp_path / "runs/small/generate").exists():
            answer = "<think>\n3 + 4 = 7\n</think>\n\nThe answer is \\boxed{7}."
            numbers = "<think>\nIt is so.\n</think>\n\nThe answer is \\boxed{%s}."
            finish_generate(recipe, tmp_path / "runs", fake_engine([answer, numbers % 9]))
            run_recipe(recipe, tmp_path / "runs", ["filter"])
            finish_sft(RunContext(recipe, tmp_path / "runs/small"), "first")
        return recipe

    return make


def test_rl_starts_from_what_sft_made_and_its_settings_leave_sft_alone(trained, tmp_path, reinforce):
    run_recipe(trained(), tmp_path / "runs", ["rl"])
    (job,) = reinforce
    weights = read_json(tmp_path / "runs/small/sft/manifest.json")["outputs"]["student"]["sha256"]
    assert job.model_path == str(tmp_path / "runs/small/sft/student")
    assert job.model_revision == f"sft@{weights}"
    said = []
    run_recipe(trained(rl={**RL, "steps": 4}), tmp_path / "runs", ["sft", "rl"], force=True, say=said.append)
    assert said[0].startswith("sft: done already")
    assert len(reinforce) == 2


def test_another_student_of_sft_and_another_sft_refuse_what_rl_made_of_it(trained, tmp_path, reinforce):
    recipe = trained()
    run_recipe(recipe, tmp_path / "runs", ["rl"])
    with pytest.raises(UserError, match=r"(?s)eval: the recipe has changed since sft was run.*sft.epochs: 2.0 -> 1.0"):
        run_recipe(trained(sft={**recipe.sft.model_dump(), "epochs": 1.0}), tmp_path / "runs", ["eval"])
    run = RunContext(recipe, tmp_path / "runs/small")
    run.folder("sft").set_aside()
    finish_sft(run, "second")
    with pytest.raises(StoreError, match="eval: rl was made from another result of sft"):
        run_recipe(recipe, tmp_path / "runs", ["eval"])
    with pytest.raises(StoreError, match="student_revision"):
        run_recipe(recipe, tmp_path / "runs", ["rl"])


def test_verdicts_of_the_filter_tell_which_problems_are_worth_it(trained, tmp_path, reinforce):
    recipe = trained(rl={**RL, "difficulty": {"low": 0.1, "high": 0.9, "min_samples": 2}})
    run_recipe(recipe, tmp_path / "runs", ["rl"])
    solved = reinforce[0].solved
    assert len(solved) == 6
    assert all(graded == 2 for _, graded in solved.values())
    assert sum(right for right, _ in solved.values()) in (0, 1, 2)  # of 7 and 9, where they are not held out


def test_verdicts_that_leave_no_problem_within_the_band_are_said_before_anything_starts(
    trained, tmp_path, reinforce, distill, here
):
    recipe = trained(rl={**RL, "difficulty": {"low": 0.6, "high": 0.9, "min_samples": 2}})
    code, _, err = distill("rl", written(recipe, tmp_path / "recipe.yaml"))
    assert (code, reinforce) == (2, [])
    assert "rl.difficulty: no problem is left whose share of right answers is between 0.6 and 0.9" in " ".join(
        err.split()
    )
    # Verdicts of another filter say nothing.
    other = trained(filter={"min_tokens": 1}, rl=recipe.rl.model_dump(mode="json"))
    with pytest.raises(UserError, match="the recipe has changed since filter was run"):
        run_recipe(other, tmp_path / "runs", ["rl"])


def test_gym_answers_are_graded_by_the_filters_limit_also_in_a_later_round(make, tmp_path):
    run = RunContext(make(filter={"gym_min_score": 0.5}), tmp_path / "runs/small")
    assert rl.rl_job(run, tmp_path).gym_min_score == rl.identity(run)["gym_min_score"] == 0.5
    plain = RunContext(make(), tmp_path / "runs/small")
    assert "gym_min_score" not in rl.identity(plain)
    assert changed_settings(run.recipe, "rl", {"stage": "rl", "recipe": plain.recipe.model_dump(mode="json")}) == {
        "filter.gym_min_score": (1.0, 0.5)
    }
    tree = make().model_dump(mode="json")
    answer = {"problem": "What is 70 + 1?", "answer": "71", "text": "<think>\nOne more.\n</think>\n\n\\boxed{71}"}
    write_jsonl(tmp_path / "made.jsonl", [answer])
    traces = [{"source": f"file:{tmp_path / 'made.jsonl'}"}]
    rounds = [
        {"name": "cold", "traces": traces, "filter": {"gym_min_score": 0.25}, "sft": {"max_length": 256}},
        {"name": "zero", "student": "round:cold", "rl": RL},
    ]
    keys = ("name", "student", "seed", "problems", "eval")
    recipe = Recipe.model_validate({**{key: tree[key] for key in keys}, "rounds": rounds})
    (cold, later) = contexts_of(recipe, tmp_path / "runs/small")
    run_recipe(recipe, tmp_path / "runs", ["import", "filter"], rounds=["cold"])
    finish_sft(cold, "cold")
    assert rl.rl_job(later, tmp_path).gym_min_score == 0.25


def test_a_changed_weight_of_sft_is_noticed_before_rl_reads_it(trained, tmp_path, reinforce):
    recipe = trained()
    (tmp_path / "runs/small/sft/student/note.txt").write_text("changed")
    with pytest.raises(StoreError, match=r"rl: .*sft/student is not what sft left there"):
        run_recipe(recipe, tmp_path / "runs", ["rl"])


def test_a_round_reinforces_the_student_of_another_one(make, tmp_path, reinforce, sampled_by, fake_engine):
    sampled_by(lambda job: fake_engine(["\\boxed{7}"]))
    tree = make().model_dump(mode="json")
    keys = ("name", "student", "seed", "problems", "eval")
    rounds = [{"name": "zero", "rl": RL}, {"name": "more", "student": "round:zero", "rl": {**RL, "kl": 0.0}}]
    recipe = Recipe.model_validate({**{key: tree[key] for key in keys}, "rounds": rounds})
    summary = run_recipe(recipe, tmp_path / "runs")
    second = reinforce[1]
    run_dir = tmp_path / "runs/small"
    weights = read_json(run_dir / "zero/rl/manifest.json")["outputs"]["student"]["sha256"]
    assert second.model_path == str(run_dir / "zero/rl/student")
    assert second.model_revision == f"round:zero@{weights}"
    assert summary["rounds"]["more"]["rl"]["num_steps"] == 3
    assert contexts_of(recipe, run_dir)[1].files.student == run_dir / "more/rl/student"
    said = []
    run_recipe(recipe, tmp_path / "runs", say=said.append)
    assert len(reinforce) == 2
    assert all("done already" in line for line in said)
    shutil.rmtree(run_dir / "zero/rl")
    run_recipe(recipe, tmp_path / "runs", ["rl"], rounds=["zero"])
    with pytest.raises((UserError, StoreError), match=r"another result of an earlier round|student_revision"):
        run_recipe(recipe, tmp_path / "runs", ["rl"], rounds=["more"])


def test_problems_of_an_evaluation_set_are_not_trained_on(make, tmp_path):
    write_jsonl(tmp_path / "exam.jsonl", [{"problem": f"What is {i} + {i + 1}?", "answer": "x"} for i in range(4)])
    exam = {"decontaminate": [f"file:{tmp_path / 'exam.jsonl'}"]}
    run = RunContext(make(filter=exam), tmp_path / "runs/small")
    plain = RunContext(make(), tmp_path / "runs/small")
    left = {one.question for one in rl.problems_of(run)}
    assert left == {one.question for one in rl.problems_of(plain)} - {f"What is {i} + {i + 1}?" for i in range(4)}
    assert len(left) < 6
    assert rl.identity(run)["evaluation_sets"] != rl.identity(plain)["evaluation_sets"] == {}


def test_an_attempt_that_left_rollouts_is_kept(make, tmp_path):
    run = RunContext(make(), tmp_path / "runs/small")
    run.folder("rl").claim({"seed": 1})
    assert rl.discard_if_empty(run)
    (run.folder("rl").path / "rollouts").mkdir()
    (run.folder("rl").path / "rollouts/step-000001.parquet").write_bytes(b"x")
    assert not rl.discard_if_empty(run)


def test_progress_is_the_steps_that_are_logged(make, tmp_path):
    run = RunContext(make(), tmp_path / "runs/small")
    run.folder("rl").claim(rl.identity(run))
    write_jsonl(run.folder("rl").path / "metrics.jsonl", [{"step": 1}, {"step": 2}])
    assert rl.progress(run.folder("rl").path) == {"num_done": 2, "num_wanted": 3, "unit": "steps"}


def test_the_check_shows_rewards_and_leaves_nothing(make, tmp_path, reinforce):
    found = check_rl(make(), tmp_path / "runs")
    assert reinforce[0].only_check
    told = found.to_json()
    assert told["parts"] == {"accuracy": 0.25, "format": 0.0}
    assert told["seconds"]["low"] > 0
    assert told["memory_gib"]["low"] > 0
    text = "\n".join(found.lines())
    assert "accuracy 0.250" in text
    assert "30 min: 3.0 s a step" in text
    assert "in 5.0% of the groups rewards differ" in text
    assert "75.0% of the answers are cut off" in text
    assert [path.name for path in (tmp_path / "runs/small/rl").iterdir()] == []


def test_the_commands_print_what_is_documented(make, tmp_path, reinforce, distill, documented, here):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(make().model_dump(mode="json")))
    code, out, _ = distill("rl", path, "--check", "--json")
    assert code == 0
    documented("distill rl --check --json", json.loads(out))
    code, out, _ = distill("rl", path, "--json")
    assert code == 0
    documented("distill rl --json", json.loads(out))
    code, out, _ = distill("rl", path)
    assert f"Student: {Path('runs/small/rl/student')}" in out
    plan = json.loads(distill("plan", path, "--json")[1])
    assert plan["stages"]["rl"]["state"] == "done"
    assert distill("rl", path, "--check", "--force")[0] == 2
    tree = json.loads(path.read_text())
    tree["rl"], tree["generate"] = None, {"teacher": tree["student"]}
    path.write_text(json.dumps({**tree, "filter": {"compute": {"workers": 1}}}))
    assert "has no rl: section. Add one to use `distill rl" in distill("rl", path)[2]


def test_a_plan_tells_what_rl_takes(make, tmp_path, distill, here):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(make().model_dump(mode="json")))
    whole = json.loads(distill("plan", path, "--json")[1])["stages"]["rl"]["whole"]
    assert whole["tokens"]["low"] > 0
    assert whole["seconds"]["low"] > 0
    assert whole["memory_gib"]["basis"].startswith("training, engine, reference model together")
    on_gpus = json.loads(distill("plan", path, "--gpus", "2", "--gpu", "h100", "--json")[1])["stages"]["rl"]
    assert on_gpus["whole"]["gpu_hours"]["high"] > 0


@pytest.mark.parametrize("inside", ["42", "The result is \\boxed{42}.", "So the answer is 42."])
def test_r1_zero_s_answers_are_found_and_graded(inside):
    text = split_reasoning(f" <think> 6 * 7 </think> <answer> {inside} </answer>").content
    problem = Problem("a", [{"role": "user", "content": "6 * 7?"}], "42", "math", "s", {})
    assert grade(problem, text).correct


def test_headline_names_the_detector_that_stopped_it():
    metrics = RlMetrics(
        student="s", student_revision="", algorithm="grpo", loss="grpo", method="full", num_problems=3, num_steps=5,
        num_wanted_steps=9, prompts_per_step=1, group_size=2, learning_rate=1e-6, num_rollouts=10,
        num_rollout_tokens=10, mean_reward=None, stopped_by="entropy",
    )  # fmt: skip
    assert rl.headline(metrics) == "5 steps, 10 rollouts; stopped by entropy after 5 of 9 steps"


def test_the_report_shows_curves_parts_warnings_and_answers_over_the_steps(make, tmp_path, reinforce):
    run_recipe(make(), tmp_path / "runs", ["rl"])
    folder = tmp_path / "runs/small/rl"
    probe, asked = read_jsonl(folder / "probe.jsonl")[0]["id"], read_jsonl(folder / "problems.jsonl")[0]["id"]
    for kind, step, name in (("probe", 0, probe), ("probe", 3, probe), ("step", 1, asked)):
        row = {
            "step": step,
            "problem_id": name,
            "text": f"<b>answer</b> at step {step} " + 2_000 * "x",
            "finish_reason": "length",
            "num_tokens": 9,
            "reward": 0.5,
            "parts": '{"accuracy": 0.5, "format": null}',
            "correct": None,
            "extracted_answer": "7",
        }
        pq.write_table(pa.Table.from_pylist([row]), folder / f"rollouts/{kind}-{step:06}.parquet")
    (folder / "rollouts/step-000002.parquet").write_bytes(b"damaged")
    manifest = read_json(folder / "manifest.json")
    history = [{"step": n, "reward": 0.1 * n, "reward_accuracy": 0.25 * n, "reward_std": 1.0} for n in (1, 2, 3)]
    manifest["metrics"] |= {
        "history": history,
        "warnings": [{"name": "truncated", "step": 2, "message": "62% of the answers were cut off"}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_report(tmp_path / "runs/small", print)
    page = (tmp_path / "runs/small/report.html").read_text()
    assert "Share of held-out problems solved</strong>, from 0 to 0.5" in page
    assert "<strong>Reward</strong>" in page
    assert "<code>accuracy</code></th><td>0.25</td><td>0.75</td>" in page
    assert "<code>std</code>" not in page
    assert "62% of the answers were cut off" in page
    assert page.count("&lt;b&gt;answer&lt;/b&gt; at step") == 3
    assert "not graded, answered" in page
    assert "(accuracy 0.5)" in page
    assert "[…]" in page
    assert "rl/rollouts/step-000002.parquet" in page
    assert 'id="funnel"' not in page


@pytest.fixture
def rounds(make, reinforce, sampled_by, fake_engine):
    """A function that makes a recipe whose second round trains on the rollouts of the first; arguments change both."""
    sampled_by(lambda job: fake_engine(["\\boxed{7}"]))

    def recipe(first=None, held_out=2, **second):
        tree = make().model_dump(mode="json")
        rest = {"filter": {"compute": {"workers": 1}}, "sft": {"max_length": 256, "epochs": 1, "batch_size": 2}}
        zero = {"name": "zero", "rl": RL, **(first or {})}
        more = {"name": "more", "traces": [{"source": "round:zero"}], **rest, **second}
        return Recipe.model_validate(
            {
                **{key: tree[key] for key in ("name", "student", "seed", "problems")},
                "eval": {"held_out": held_out, "sampling": {"max_tokens": 16}},
                "rounds": [zero, {key: value for key, value in more.items() if value is not None}],
            }
        )

    return recipe


def test_the_rollouts_of_a_round_are_traces_of_a_later_one(rounds, tmp_path):
    recipe, run_dir = rounds(sft=None), tmp_path / "runs/small"
    summary = run_recipe(recipe, tmp_path / "runs", until="more/filter")
    asked, held_out = (read_jsonl(run_dir / f"zero/rl/{name}.jsonl") for name in ("problems", "probe"))
    imported = {one["id"]: one for one in read_jsonl(run_dir / "more/import/problems.jsonl")}
    assert imported == {one["id"]: one for one in asked}
    assert not imported.keys() & {one["id"] for one in held_out}
    traces = list(stored_traces(run_dir / "more/import"))
    assert len(traces) == 3 * (6 + 2)
    assert len({trace.key for trace in traces}) == len(traces)
    again = [trace for trace in traces if trace.problem_id == asked[0]["id"]]
    assert [trace.sample_index for trace in again] == list(range(6))  # asked in two steps
    made = [(trace.teacher_revision, trace.seed) for trace in again]
    assert made[2:4] == [("step-0@0000", 2), ("step-2@2222", 200)]
    right, _, cut = again[:3]
    assert (right.teacher, right.num_prompt_tokens, right.num_completion_tokens) == ("round:zero", 3, 9)
    answer = asked[0]["answer"]
    assert right.text.startswith(f"{answer}, so that is")  # verbatim, and read as begun inside the thought
    assert (right.reasoning, right.content) == (
        f"{answer}, so that is what it makes.",
        f"The answer is \\boxed{{{answer}}}.",
    )
    assert (cut.finish_reason, cut.reasoning, cut.content) == ("length", f"{answer} may be", "")
    assert summary["rounds"]["more"]["made_from"]["rollouts"] == ["zero"]
    verdicts = read_jsonl(run_dir / "more/filter/verdicts.jsonl")
    assert [one["correct"] for one in verdicts].count(True) == 8
    kept = pq.read_table(run_dir / "more/filter/kept").to_pylist()
    assert len(kept) == summary["rounds"]["more"]["filter"]["num_kept"] == 6  # the same text twice is a duplicate
    assert all("so that is what it makes." in one["completion"][0]["content"] for one in kept)
    locked = read_lock(run_dir / "recipe.lock.yaml")["recipe"]["rounds"][1]["traces"]
    assert [one["source"] for one in locked] == ["round:zero"]
    plan = plan_any(recipe, tmp_path / "runs", this_machine(), load_prices()).to_json()
    assert {name: one["state"] for name, one in plan["stages"].items()}["more/import"] == "done"
    assert "24 traces were imported: the rollouts of zero." in (run_dir / "report.html").read_text()


@pytest.mark.slow
def test_a_student_is_fine_tuned_on_the_right_rollouts_of_a_round(rounds, tmp_path):
    summary = run_recipe(rounds(), tmp_path / "runs")
    assert summary["rounds"]["more"]["sft"]["num_rows"] == 6
    assert list(summary["scores"]["models"]) == ["base", "zero", "more"]
    said = []
    run_recipe(rounds(), tmp_path / "runs", say=said.append)
    assert all("done already" in line for line in said)
    assert list(made_from(contexts_of(rounds(), tmp_path / "runs/small")[1])) == ["zero"]


def test_other_rollouts_refuse_what_was_made_of_them(rounds, tmp_path):
    runs, recipe = tmp_path / "runs", rounds(sft=None)
    run_recipe(recipe, runs, until="more/filter")
    path = runs / "small/zero/rl/rollouts/step-000000.parquet"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + b"x")
    shutil.rmtree(runs / "small/more/import")
    with pytest.raises(StoreError, match=r"import: .*rollouts is not what rl left there.*`distill rl --round zero"):
        run_recipe(recipe, runs, ["import"], rounds=["more"])
    path.write_bytes(sound)
    run_recipe(recipe, runs, ["import"], rounds=["more"])
    changed = rounds({"rl": {**RL, "kl": 0.0}}, sft=None)
    with pytest.raises(UserError, match=r"(?s)more: .*changed since rl of round zero was run.*rl.kl: 0.001 -> 0.0"):
        run_recipe(changed, runs, ["import"], rounds=["more"])
    run_recipe(rounds(sft=None), runs, ["rl"], rounds=["zero"])
    shutil.rmtree(runs / "small/zero/rl")
    with pytest.raises(UserError, match=r"Run `distill rl --round zero` first"):
        run_recipe(recipe, runs, ["import"], rounds=["more"])


def test_a_new_set_of_rollouts_makes_filtered_ones_outdated(rounds, tmp_path):
    runs, recipe = tmp_path / "runs", rounds(sft=None)
    run_recipe(recipe, runs, until="more/filter")
    run = contexts_of(recipe, runs / "small")[1]
    run.made_before("filter")
    manifest = runs / "small/zero/rl/manifest.json"
    tree = read_json(manifest)
    tree["outputs"]["rollouts"]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(tree))
    with pytest.raises(StoreError, match="import of round more was made from another result of an earlier round"):
        run.made_before("filter")


def test_what_is_held_out_stays_out_though_a_file_of_rollouts_has_it(rounds, tmp_path):
    runs, recipe = tmp_path / "runs", rounds(sft=None)
    run_recipe(recipe, runs, ["rl"], rounds=["zero"])
    folder = runs / "small/zero/rl"
    probe = read_jsonl(folder / "probe.jsonl")
    write_jsonl(folder / "problems.jsonl", [*read_jsonl(folder / "problems.jsonl"), *probe])
    shutil.copy(folder / "rollouts/probe-000000.parquet", folder / "rollouts/step-000009.parquet")
    metrics = import_traces.run(contexts_of(recipe, runs / "small")[1]).metrics
    assert (metrics["num_samples"], metrics["num_problems"], metrics["num_skipped"]) == (24, 6, 6)


@pytest.mark.parametrize(
    ("first", "traces", "at", "said"),
    [
        ({}, [{"source": "round:cero"}], "traces.0.source", "there is no round 'cero'"),
        ({}, [{"source": "round:more"}], "traces.0.source", "is this round itself"),
        ({}, [{"source": "round:zero", "task": "math"}], "traces.0", "only limit applies. Remove task"),
        ({"rl": None, "generate": {}, "sft": {}}, [{"source": "round:zero"}], "traces.0.source",
         "round:zero has no rollouts (it has no rl:)"),
    ],
)  # fmt: skip
def test_a_round_without_rollouts_is_refused_with_its_key(rounds, tiny_llama, first, traces, at, said):
    first = {**first, "generate": {"teacher": str(tiny_llama)}} if "generate" in first else first
    first = {key: value for key, value in first.items() if value is not None}
    tree = rounds().model_dump(mode="json")
    own = {"name": "zero", **first} if first else tree["rounds"][0]
    second = {"name": "more", "traces": traces, "filter": {}, "sft": {"max_length": 256}}
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({**tree, "rounds": [own, second]})
    assert f"rounds.1.{at}" in str(caught.value)
    assert said in str(caught.value)


def test_without_rounds_no_round_s_rollouts_can_be_named(make_recipe):
    with pytest.raises(ValidationError, match="round:zero names a round, but the recipe has no rounds"):
        make_recipe(generate=None, problems=[], traces=[{"source": "round:zero"}])


def test_the_plan_and_the_doctor_know_how_many_rollouts_there_will_be(rounds, tmp_path):
    recipe = rounds(sft=None)
    plan = plan_any(recipe, tmp_path / "runs", this_machine(), load_prices()).to_json()
    whole = plan["stages"]["more/import"]["whole"]["tokens"]
    assert whole["basis"].startswith("12 traces")
    assert whole["high"] <= 12 * 32  # rl.max_tokens
    assert not [note for note in plan["notes"] if "round:zero" in note]
    found = [
        one
        for probe in recipe_probes(recipe, tmp_path / "runs", "r")
        if probe.name == "dataset"
        for one in probe.look()
    ]
    assert not [one for one in found if "round:zero" in one.said]
    few = rounds(sft=None, traces=[{"source": "round:zero", "limit": 5}])
    assert (
        plan_any(few, tmp_path / "runs", this_machine(), load_prices())
        .to_json()["stages"]["more/import"]["whole"]["tokens"]["basis"]
        .startswith("5 traces")
    )
