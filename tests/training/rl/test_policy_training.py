"""Training of a policy for real, on a random model: TRL's losses, resume to the last bit, several processes."""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from distill.training.layout import Layout
from distill.training.rl.check import check
from distill.training.rl.rollouts import read_rollouts, write_rollouts

SCRIPT = Path(__file__).with_name("policy_job.py")
_spec = importlib.util.spec_from_file_location("policy_job", SCRIPT)
policy_job = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(policy_job)
make_job, run_of, train = policy_job.make_job, policy_job.run_of, policy_job.train
pytestmark = pytest.mark.slow


def weights(folder):
    return load_file(folder / "student" / "model.safetensors")


def same_bits(one, two):
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])] == []


def history(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, train(tiny_llama, folder)


def test_a_policy_is_trained_measured_and_saved(unbroken, tiny_llama):
    folder, found = unbroken
    assert found["num_steps"] == 4
    assert found["num_rollouts"] == 32
    assert [point["step"] for point in found["probe"]] == [0, 2, 4]
    assert found["best_step"] is not None
    assert not same_bits(weights(folder), load_file(tiny_llama / "model.safetensors"))
    assert {path.name for path in (folder / "rollouts").iterdir()} == {
        *(f"step-00000{step}.parquet" for step in range(4)),
        *(f"probe-00000{step}.parquet" for step in (0, 2, 4)),
    }
    assert (folder / "best" / "student" / "model.safetensors").exists()
    steps = history(folder)
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    assert {"reward", "entropy", "kl", "truncated", "no_variance", "tokens_mean"} <= steps[0].keys()


def test_log_probabilities_of_the_answers_are_the_policys(unbroken, tiny_llama):
    """The first step's answers come from the weights at the start."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    for one in read_rollouts(unbroken[0] / "rollouts" / "step-000000.parquet"):
        with torch.no_grad():
            logits = model(torch.tensor([one.prompt_ids + one.ids])).logits[0, len(one.prompt_ids) - 1 : -1]
        told = logits.log_softmax(-1).gather(-1, torch.tensor(one.ids)[:, None]).squeeze(-1)
        assert told.tolist() == pytest.approx(one.logprobs, abs=1e-4)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_losses_are_trls_on_the_same_answers(tiny_llama, tmp_path, method, monkeypatch):
    """TRL samples by calling us for the stored answers; everything else is its own trainer, unchanged."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import GRPOTrainer

    from distill.training.arguments import lora_config

    changes = {"steps": 2, "method": method, "reference_every": None, "probe": {"problems": 0}}
    job = make_job(tiny_llama, tmp_path / "ours", changes)
    run = run_of(job)
    run.train()
    ours = run.trainer
    run.close()
    stored = [read_rollouts(tmp_path / "ours" / "rollouts" / f"step-00000{step}.parquet") for step in range(2)]

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    arguments = make_arguments(job, tmp_path / "theirs")
    rewards = {}

    def reward(completion_ids, **ignored):
        return [rewards[tuple(ids)] for ids in completion_ids]

    set_seed(5)
    theirs = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32, attn_implementation="sdpa"),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["x"] * 4}),
        processing_class=tokenizer,
        peft_config=lora_config(run.config.as_sft),
    )

    def stored_answers(prompts):
        rows = stored[theirs.state.global_step]
        rewards.update({tuple(one.ids): one.reward for one in rows})
        texts = [one.text for one in rows]
        return [one.prompt_ids for one in rows], [one.ids for one in rows], None, texts, None, {}, None, []

    def seeded(batch):  # the order of a step's rows is drawn from torch's global generator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5 + theirs.state.global_step)
            return GRPOTrainer._prepare_inputs(theirs, batch)

    theirs._generate = stored_answers
    theirs._prepare_inputs = seeded
    theirs.train()
    told = [[entry[key] for entry in trainer.state.log_history if "loss" in entry] for trainer in (ours, theirs)
            for key in ("loss", "grad_norm", "kl")]  # fmt: skip
    assert told[:3] == told[3:]
    assert same_bits(dict(ours.model.state_dict()), dict(theirs.model.state_dict()))


def make_arguments(job, folder):
    from distill.recipe.rl import RlConfig
    from distill.training.arguments import pick_device
    from distill.training.rl.arguments import policy_arguments

    config = RlConfig.model_validate(job.config)
    device = pick_device(config.as_sft, Path(job.model_path))
    return policy_arguments(replace(job, out_dir=str(folder)), config, Layout(**job.layout), device)


@pytest.mark.parametrize("kernels", [True, False])
def test_a_check_rewards_a_handful_of_answers_and_trains_nothing(tiny_llama, tmp_path, kernels):
    changes = {"compute": {"training": {"kernels": kernels, "tracking": ["trackio"]}}}
    run = run_of(replace(make_job(tiny_llama, tmp_path, changes), only_check=True))
    try:
        before = {name: weight.clone() for name, weight in run.trainer.model.named_parameters()}
        found = check(run)
        assert all(torch.equal(before[name], weight) for name, weight in run.trainer.model.named_parameters())
    finally:
        run.close()
    assert (found["num_problems"], found["num_answers"]) == (2, 8)
    assert 0 < found["parts"]["accuracy"] < 1
    assert found["seconds_per_step"] > 0
    assert not (tmp_path / "student").exists()
    assert not list((tmp_path / "rollouts").iterdir())


def test_packed_answers_learn_the_same(tiny_llama, unbroken, tmp_path):
    """With the kernels for CPU, from the same stored answers; the policies differ by rounding after the first step."""
    changes = {"steps": 1, "compute": {"training": {"kernels": True}}}
    train(tiny_llama, tmp_path, changes)
    one, two = history(tmp_path)[0], history(unbroken[0])[0]
    for key in ("loss", "entropy", "reward"):
        assert one[key] == pytest.approx(two[key], abs=1e-5), key
    assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("mode", ["sequence_mask", "sequence_truncate", "token_mask", "token_truncate"])
def test_an_engine_that_rounds_otherwise_is_corrected_as_by_trl(tiny_llama, unbroken, tmp_path, mode):
    """Packed, without TRL's second pass of the policy; the stored log-probabilities are moved to show something."""
    rng = random.Random(2)
    stored = read_rollouts(unbroken[0] / "rollouts" / "step-000000.parquet")
    for one in stored:
        one.logprobs = [value + rng.uniform(-0.4, 0.4) for value in one.logprobs]
    told = []
    for kernels in (True, False):
        folder = tmp_path / str(kernels)
        (folder / "rollouts").mkdir(parents=True)
        write_rollouts(folder / "rollouts" / "step-000000.parquet", stored)
        changes = {"steps": 1, "trl": {"vllm_importance_sampling_mode": mode}, "probe": {"problems": 0}}
        changes["compute"] = {"training": {"kernels": kernels}}
        run = run_of(make_job(tiny_llama, folder, changes))
        run.trainer.corrects_sampling()
        run.train()
        run.close()
        told.append(history(folder)[0])
    assert not list(tmp_path.glob("*/rollouts/aside"))
    packed, plain = told
    for key in ("loss", "sampling/sampling_logp_difference/mean"):
        assert packed[key] == pytest.approx(plain[key], abs=2e-5), key
    assert packed["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)
    assert packed["sampling/sampling_logp_difference/mean"] > 0.1


def test_groups_without_variance_change_no_gradient(tiny_llama, unbroken, tmp_path):
    stored = read_rollouts(unbroken[0] / "rollouts" / "step-000000.parquet")
    for one in stored:
        if one.slot == 0:
            one.reward = 1.0
    told = []
    for kernels in (True, False):
        folder = tmp_path / str(kernels)
        (folder / "rollouts").mkdir(parents=True)
        write_rollouts(folder / "rollouts" / "step-000000.parquet", stored)
        changes = {"steps": 1, "kl": 0, "probe": {"problems": 0}, "compute": {"training": {"kernels": kernels}}}
        train(tiny_llama, folder, changes)
        told.append(history(folder)[0])
    packed, plain = told
    assert packed["no_variance"] == 0.5
    assert packed["loss"] == pytest.approx(plain["loss"], abs=1e-5)
    assert packed["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)


def test_a_step_without_any_variance_moves_the_weights_as_trls(tiny_llama, tmp_path):
    """No gradient, and yet the optimiser's moments push on and weights decay."""
    changes = {"steps": 2, "kl": 0, "reference_every": None, "probe": {"problems": 0}, "trl": {"weight_decay": 0.1}}

    def flat_after_the_first(scorer):
        score = scorer.score

        def flat(groups):
            score(groups)
            for one in (one for group in groups for one in group if one.step):
                one.reward = 1.0

        scorer.score = flat

    def skip_in_the_second(trainer):
        # The packed pass of the first step would round otherwise.
        trainer.before_step = lambda step: setattr(trainer, "_packs", step == 1)

    for name in ("ours", "trls"):
        run = run_of(make_job(tiny_llama, tmp_path / name, changes))
        flat_after_the_first(run.scorer)
        if name == "ours":
            skip_in_the_second(run.trainer)
        run.train()
        run.close()
        assert [entry["no_variance"] for entry in history(tmp_path / name)][1] == 1.0
    ours, trls = (weights(tmp_path / name) for name in ("ours", "trls"))
    assert same_bits(ours, trls)
    before = load_file(tmp_path / "trls" / "checkpoints" / "checkpoint-1" / "model.safetensors")
    assert not any(torch.equal(trls[name], before[name]) for name in before)


def test_an_early_end_that_was_killed_ends_without_another_step(tiny_llama, tmp_path):
    changes = {"on_warning": "stop", "watch": {"window": 2, "truncated": 0.0}, "probe": {"problems": 0}}
    found = train(tiny_llama, tmp_path, changes)
    assert (found["num_steps"], found["stopped_by"]) == (2, "truncated")
    before, told = weights(tmp_path), history(tmp_path)
    for name in ("student", "best"):  # killed after the checkpoint and before the student was saved
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    again = train(tiny_llama, tmp_path, changes)
    assert (again["num_steps"], again["stopped_by"]) == (2, "truncated")
    assert again["warnings"] == found["warnings"]
    assert same_bits(weights(tmp_path), before)
    assert history(tmp_path) == told


def start(model, folder, changes, layout=None):
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(model), str(folder)]
    command += [json.dumps(changes)] + ([] if layout is None else [json.dumps(layout)])
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_at_random(model, folder, changes, moments):
    """Start again and again, and kill each time, until a run ends by itself; return how often it was killed."""
    num_killed = 0
    for moment in moments:
        process = start(model, folder, changes)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        num_killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            return num_killed
    process = start(model, folder, changes)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    return num_killed


@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_and_resumed_it_ends_with_the_same_bits(tiny_llama, tmp_path, method):
    """The reference is reset on the way, which with LoRA is a second adapter."""
    changes = {"steps": 5, "method": method, "kl": 0.1}
    process = start(tiny_llama, tmp_path / "unbroken", changes)
    began = time.monotonic()
    _, errors = process.communicate()
    took = time.monotonic() - began
    assert process.returncode == 0, errors.decode()[-2000:]
    # Once while it works, and once soon after the next start, while the answers of a step are half there.
    num = kill_at_random(tiny_llama, tmp_path / "killed", changes, [0.75 * took, 0.7 * took])
    assert num >= 1
    assert same_bits(weights(tmp_path / "killed"), weights(tmp_path / "unbroken"))


@pytest.mark.long
def test_twenty_kills_at_random_points(tiny_llama, tmp_path):
    changes = {"steps": 12, "save_every_steps": 2, "resample": 1, "difficulty": {"low": 0.05, "high": 0.95}}
    process = start(tiny_llama, tmp_path / "unbroken", changes)
    began = time.monotonic()
    process.communicate()
    took = time.monotonic() - began
    rng = random.Random(1)
    killed = 0
    for number in range(100):
        folder = tmp_path / f"killed{number}"
        killed += kill_at_random(tiny_llama, folder, changes, [rng.uniform(0.3, 1.0) * took for _ in range(4)])
        assert same_bits(weights(folder), weights(tmp_path / "unbroken"))
        if killed >= 20:
            return
    pytest.fail(f"killed {killed} times only")


@pytest.fixture(scope="module")
def teacher(tiny_llama, tmp_path_factory):
    """A model that expects other tokens, and is surer of them."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    shutil.copytree(tiny_llama, folder)
    stored = load_file(folder / "model.safetensors")
    changed = {name: 3 * weight if weight.ndim > 1 else weight for name, weight in stored.items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    return folder


def taught_by(teacher, **more):
    return {"algorithm": "distill", "teachers": [str(teacher)], "kl": 0, "probe": {"problems": 0}} | more


@pytest.mark.parametrize("divergence", ["reverse", "forward"])
def test_the_divergence_from_a_teacher_falls(tiny_llama, teacher, tmp_path, divergence):
    train(tiny_llama, tmp_path, taught_by(teacher, divergence=divergence, steps=20, learning_rate=1e-3))
    found = [entry["divergence"] for entry in history(tmp_path)]
    assert sum(found[-3:]) < 0.5 * sum(found[:3])


@pytest.mark.parametrize("loss", ["grpo", "dapo", "dr_grpo"])
def test_the_divergence_does_not_depend_on_how_answers_are_computed(tiny_llama, teacher, tmp_path, loss):
    """Whole or in passes, and with a prompt computed once or for each answer."""
    changes = taught_by(teacher, divergence="reverse", loss=loss, steps=1, max_grad_norm=1e9)
    train(tiny_llama, tmp_path / "one", changes)
    for name, kernels, rows in (("packed", True, 4), ("whole", False, 8), ("parts", True, 2)):
        compute = {"training": {"kernels": kernels, "per_device_batch_size": rows}}
        layout = Layout(num_processes=1, per_device_batch_size=rows, accumulation=8 // rows)
        train(tiny_llama, tmp_path / name, changes | {"compute": compute}, layout)
        (one,), (other,) = history(tmp_path / "one"), history(tmp_path / name)
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        # Passes may have other numbers of tokens, so that the mean of their means is not that of the whole.
        assert other["divergence"] == pytest.approx(one["divergence"], rel=0.2)


def in_two_processes(command, layout, model, folder, changes):
    """Train on gloo; `command` runs a script with the arguments of policy_job.py."""
    port = 20_000 + random.randrange(20_000)
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
             "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "ACCELERATE_TORCH_DEVICE": "cpu"}  # fmt: skip
    command = [sys.executable, "-W", "ignore", *command, str(model), str(folder), json.dumps(changes)]
    command.append(json.dumps(layout.to_json()))
    both = []
    for rank in range(2):
        environment = {**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        both.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-2000:]


@pytest.mark.parametrize("kind", ["rewards", "divergence"])
def test_two_processes_learn_what_one_does(tiny_llama, teacher, tmp_path, kind):
    """From the same answers: each process reads back its half of those that one process stored."""
    changes = {"steps": 1, "probe": {"problems": 0}, "reference_every": None}
    if kind == "divergence":
        changes |= taught_by(teacher, divergence="forward", learning_rate=1e-4)
    train(tiny_llama, tmp_path / "one", changes)
    (stored,) = [read_rollouts(path) for path in (tmp_path / "one" / "rollouts").glob("step-*.parquet")]
    rollouts = tmp_path / "two" / "rollouts"
    rollouts.mkdir(parents=True)
    for rank in range(2):
        half = [one for one in stored if one.slot == rank]
        write_rollouts(rollouts / f"step-000000.rank{rank}-of-2.parquet", half)
    layout = Layout(num_processes=2, per_device_batch_size=4, accumulation=1)
    in_two_processes([str(SCRIPT)], layout, tiny_llama, tmp_path / "two", changes)
    assert not (rollouts / "aside").exists()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5, msg=name)


IN_SHARES = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
sys.stdout.flush()
import os
os._exit(0)
"""


@pytest.mark.long
@pytest.mark.parametrize(("kind", "method"), [("kl", "full"), ("divergence", "full"), ("divergence", "lora")])
def test_a_policy_in_shares_learns_what_a_whole_one_does(tiny_llama, teacher, tmp_path, kind, method):
    """FSDP2 on gloo: the reference and its resets, the teacher's divergence, a checkpoint of all of it."""
    changes = {"steps": 4, "probe": {"problems": 0}, "kl": 0.1, "learning_rate": 1e-4, "method": method}
    if kind == "divergence":
        changes |= taught_by(teacher, divergence="reverse")
    train(tiny_llama, tmp_path / "one", changes)
    folder, layout = tmp_path / "two", Layout(2, 4, 1, "fsdp")
    command = ["-c", Path(SCRIPT).parents[1].joinpath("fsdp_on_cpu.py").read_text() + IN_SHARES, str(SCRIPT)]
    in_two_processes(command, layout, tiny_llama, folder, changes)
    whole, shared = history(tmp_path / "one"), history(folder)
    keys = ["loss", "grad_norm", "kl" if kind == "kl" else "divergence"]
    for key in keys:
        found = [entry[key] for entry in shared]
        assert found == pytest.approx([entry[key] for entry in whole], rel=1e-3, abs=1e-6), key
    one, two = weights(tmp_path / "one"), weights(folder)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5, msg=name)
    # The newest checkpoint is gone, as after a kill: the reference is that of the one before.
    shutil.rmtree(folder / "checkpoints" / "checkpoint-4")
    in_two_processes(command, layout, tiny_llama, folder, changes)
    for key in keys:
        assert [entry[key] for entry in history(folder)] == [entry[key] for entry in shared], key
    assert not list((folder / "rollouts").glob("aside/*"))
