"""What answers of a step are worth, as the job has them graded."""

import json
from dataclasses import replace

import pytest

from distill.recipe.problems import ProblemSource
from distill.recipe.rl import RlConfig
from distill.sources.problems import load_problems
from distill.storage.case_files import write_problems
from distill.training.layout import Layout
from distill.training.rl import run
from distill.training.rl.job import RlJob
from distill.training.rl.rollouts import Rollout
from distill.training.rl.scoring import RolloutScorer


@pytest.fixture
def gym_job(tiny_llama, tmp_path):
    """A job on one problem of reasoning-gym, and the problem."""
    (problem,) = load_problems(ProblemSource(source="gym:chain_sum", limit=1), seed=5)
    write_problems(tmp_path / "problems.jsonl", [problem])
    config = RlConfig(compute={"training": {"tracking": []}})
    job = RlJob(
        model_name="tiny", model_path=str(tiny_llama), model_revision="0", chat_template=None, chat_format=None,
        stop_token=None, problems=str(tmp_path / "problems.jsonl"), probe=None, solved={}, facts=None, sandbox={},
        out_dir=str(tmp_path), seed=5, owner="test", project="test", run_name="rl",
        layout=Layout(num_processes=1, per_device_batch_size=4, accumulation=1).to_json(),
        config=json.loads(config.model_dump_json()),
    )  # fmt: skip
    return job, problem


@pytest.mark.parametrize(("limit", "is_right"), [(0.05, True), (1.0, False)])
def test_part_of_a_gym_answers_point_is_right_from_the_filters_limit_on(gym_job, monkeypatch, limit, is_right):
    job, problem = gym_job
    text = f"<think>\nIt is so.\n</think>\n\n\\boxed{{about {problem.answer}}}"
    answer = Rollout(0, 0, 0, 0, problem.id, 0, 1, "p", [1], [2, 3], [-0.1, -0.1], text=text)

    class Scores:
        """Stands for the training, of which it only scores one answer."""

        def __init__(self, *given, **more):
            (self.scorer,) = (one for one in given if isinstance(one, RolloutScorer))

        def train(self):
            self.scorer.score([[answer]])
            return {}

        def close(self):
            pass

    monkeypatch.setattr(run, "PolicyRun", Scores)
    run.train_rl(replace(job, gym_min_score=limit))
    assert (answer.correct, answer.parts["accuracy"]) == (is_right, float(is_right))
