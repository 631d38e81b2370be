"""The whole training under FSDP2, on gloo: `tests/test_on_gpu.py` has it on GPUs.

accelerate offers FSDP on GPUs alone. On CPU one of its branches is replaced, the one that picks the kind of
distribution; all that FSDP2 then does is its own: the units, the shares, the collectives, the checkpoints.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill.execution import jobs
from distill.execution.process_group import ProcessGroup
from distill.training.layout import Layout
from distill.training.sharding import SHARDED_WEIGHTS, consolidate

pytestmark = pytest.mark.slow

AS_ON_GPU = {"save_every_steps": 2, "kernels": False, "packing": False}
"""Without what training on a CPU does otherwise than on GPUs."""

ON_CPU = (
    Path(__file__).with_name("fsdp_on_cpu.py").read_text()
    + """
import json, os, sys
from transformers import TrainerCallback, trainer as transformers_trainer

class Count(TrainerCallback):
    def on_train_end(self, args, state, control, model=None, optimizer=None, **more):
        parameters = list(model.parameters())
        held = sum(p.to_local().numel() for p in parameters)
        moments = [s["exp_avg"] for s in optimizer.state.values()]
        counts = {
            "held": held, "of": sum(p.numel() for p in parameters),
            "moments_held": sum(m.to_local().numel() for m in moments), "moments_of": sum(m.numel() for m in moments),
            "shared_layers": sum("FSDP" in type(m).__name__ for m in model.modules()),
        }
        print("COUNTS " + json.dumps(counts), flush=True)

transformers_trainer.DEFAULT_CALLBACKS.append(Count)
from distill.execution import jobs
code = jobs.main(*sys.argv[1:4])
sys.stdout.flush()
os._exit(code)
"""
)


def train_shared(task):
    """Two processes on gloo, each with its share of the model; the counts that they leave in their logs."""
    folder = Path(task.out_dir)
    (folder / "job.json").write_text(json.dumps(dataclasses.asdict(task)))
    command = [sys.executable, "-c", ON_CPU, "train", str(folder / "job.json")]
    environment = {**jobs._clean_environment(), "ACCELERATE_TORCH_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    with ProcessGroup("train", command, folder, environment, 0.0) as crew:
        jobs._start_group(crew, 2)
        value, _ = crew.wait()
    logs = [(folder / name).read_text() for name in ("train.log", "train.rank1.log")]
    return value, [json.loads(log.partition("COUNTS ")[2].splitlines()[0]) for log in logs]


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
@pytest.mark.parametrize(("model", "method"), [("tiny_llama", "full"), ("tiny_qwen2", "lora")])
def test_a_model_in_shares_learns_what_a_whole_one_does(tmp_path, request, make_job, write_sums, model, method):
    """Tied and untied embeddings; all weights, and an adapter whose base is frozen."""
    write_sums(tmp_path / "rows", 12)
    folder = request.getfixturevalue(model)
    one = make_job(folder, "one", Layout(1, 2, 2), AS_ON_GPU, method=method)
    jobs.run_job("train", one, tmp_path / "one")
    two = make_job(folder, "two", Layout(2, 2, 1, "fsdp"), AS_ON_GPU, method=method)
    _, counts = train_shared(two)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=0, abs=1e-5)
    for name in ("", "moments_"):
        assert sum(count[f"{name}held"] for count in counts) == counts[0][f"{name}of"]
        assert max(count[f"{name}held"] for count in counts) < 0.51 * counts[0][f"{name}of"]
    whole, shared = (load_file(tmp_path / out / "student" / "model.safetensors") for out in ("one", "two"))
    assert whole.keys() == shared.keys()
    assert all(torch.allclose(whole[name], shared[name], rtol=0, atol=1e-4) for name in whole)
    if method == "full":
        check_checkpoint(tmp_path / "two", shared)
    # The newest checkpoint is gone, as after a kill: the one before it is gone on from, with the shares it holds.
    before = losses(tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "checkpoint-6")
    value, _ = train_shared(two)
    assert value["resumed_from_step"] == 4
    assert losses(tmp_path / "two") == before


def check_checkpoint(folder, student):
    """The last checkpoint's shares are the student, bit for bit."""
    shares = folder / "checkpoints" / "checkpoint-6" / SHARDED_WEIGHTS
    assert len(list(shares.glob("*.distcp"))) == 2
    consolidate(shares, folder / "whole", skip={"lm_head.weight"})
    found = load_file(folder / "whole" / "model.safetensors")
    assert found.keys() == student.keys()
    assert all(torch.equal(found[name], student[name]) for name in student)
