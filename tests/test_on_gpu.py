"""What only a GPU can show: sampling, training and memory there, in bfloat16. No test needs a download.

`DISTILL_GPU_TESTS=cpu` tries them without a GPU, as far as a CPU goes.
"""

import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.engines.base import EngineSpec, Request
from distill.engines.memory import visible_gpus
from distill.engines.transformers import TransformersEngine
from distill.estimates.training_memory import CUDA_CONTEXT_GIB
from distill.execution import jobs
from distill.models.hub import Model
from distill.models.tokenizers import encode, load_tokenizer, render_prompt
from distill.recipe.sampling import Sampling, SamplingCompute
from distill.recipe.sft import SftConfig
from distill.runs.sft_check import training_needs
from distill.storage.layout import STUDENT
from distill.training.job import TOKENS
from distill.training.rows import row_lengths, token_rows
from distill.training.run import train
from distill.training.student import StudentCheck, check_student

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
NUM_ROWS = 8
ON_GPU = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not ON_GPU, reason="torch sees no GPU")


def of_benchmarks(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


models, rows_of = of_benchmarks("random_models"), of_benchmarks("training_rows")
ROWS = rows_of.worked_sums(NUM_ROWS, [3] * NUM_ROWS)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return Model("tiny", models.save_random_model(models.TINY, tmp_path_factory.mktemp("tiny")), "0")


def start_training(model, folder, rows=ROWS, **sft):
    """Train, in this process where one is enough; the job, and what it returned."""
    kept = folder / "rows"
    if not kept.exists():
        rows_of.write_rows(rows, kept)
    compute = {"tracking": [], "num_processes": 1, **sft.pop("compute", {})}
    settings = {"max_length": 512, "batch_size": 4, "learning_rate": 5e-3, **sft, "compute": compute}
    job = rows_of.train_job(model, kept, folder, 7, len(visible_gpus()), **settings)
    if job.layout["sharding"] == "none":
        before = dict(os.environ)
        try:
            return job, train(job)
        finally:  # it leaves variables behind, for a process of its own
            os.environ.clear()
            os.environ.update(before)
    return job, jobs.run_job("train", job, folder, num_processes=job.layout["num_processes"], is_group=True)[0]


def losses(result):
    return [entry["loss"] for entry in result["history"]]


@pytest.fixture(scope="module")
def taught(tiny, tmp_path_factory):
    """The folder of a student that knows its rows by heart."""
    folder = tmp_path_factory.mktemp("taught")
    _, result = start_training(tiny, folder, epochs=80)
    assert losses(result)[-1] < 0.05
    return folder


# --- the machine


@needs_cuda
def test_nvidia_smi_and_torch_see_the_same_gpus():
    """In a process of its own: once CUDA has begun here, training could no longer choose its GPU."""
    code = (
        "import torch, json; see = torch.cuda.get_device_properties;"
        "print(json.dumps([see(i).total_memory / 2**30 for i in range(torch.cuda.device_count())]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == pytest.approx(list(visible_gpus().values()), rel=0.05)


# --- training


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_learns_in_bfloat16_on_the_gpu(taught, tmp_path, method):
    """Other rows than the student knows: an adapter on random weights would have nothing to build on."""
    model = Model("taught", taught / STUDENT, "0")
    rows = rows_of.worked_sums(NUM_ROWS, [3] * NUM_ROWS, seed=1)
    _, result = start_training(model, tmp_path, rows, method=method, epochs=8)
    assert losses(result)[-1] < 0.7 * losses(result)[0]
    assert result["device"]["on_gpu"] == ON_GPU
    assert result["device"]["dtype"] == ("bfloat16" if ON_GPU else "float32")
    assert (tmp_path / STUDENT / "model.safetensors").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_that_goes_on_from_a_checkpoint_is_as_good_as_unbroken(tiny, tmp_path, method):
    settings = {"method": method, "epochs": 3, "compute": {"save_every_steps": 2}}
    _, unbroken = start_training(tiny, tmp_path, **settings)
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-6")
    shutil.rmtree(tmp_path / STUDENT)
    _, resumed = start_training(tiny, tmp_path, **settings)
    assert resumed["resumed_from_step"] == 4
    # On a CPU to the last bit; a GPU adds up in another order each time.
    assert losses(resumed) == pytest.approx(losses(unbroken), rel=1e-2 if ON_GPU else 0, abs=0)


@needs_cuda
@pytest.mark.parametrize("method", ["full", "lora"])
def test_fsdp2_on_gpus_learns_what_one_gpu_does(tiny, tmp_path, method):
    """As a recipe starts it; a machine with one GPU makes a group of one."""
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    num_gpus = min(2, len(visible_gpus()))
    shares = {"num_processes": num_gpus, "sharding": "fsdp", "dtype": "float32"}
    _, two = start_training(tiny, tmp_path / "two", method=method, epochs=3, compute=shares)
    _, one = start_training(tiny, tmp_path / "one", method=method, epochs=3, compute={"dtype": "float32"})
    assert losses(two) == pytest.approx(losses(one), rel=0, abs=1e-3)
    assert len(list((tmp_path / "two" / STUDENT).glob("*.safetensors"))) == 1


@needs_cuda
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_peak_of_memory_is_within_the_estimate(tmp_path, method):
    """A model of 50M parameters, so that tensors and not CUDA's own memory are what is compared."""
    model = Model("small", models.save_random_model(models.SMALL, tmp_path / "model"), "0")
    rows = rows_of.long_rows(16, 1_024)
    settings = {"method": method, "max_length": 1_100, "batch_size": 8, "epochs": 1, "learning_rate": 1e-4}
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    there_gib = torch.cuda.memory_allocated() / 2**30
    job, result = start_training(model, tmp_path, rows, **settings)
    lengths = row_lengths(token_rows(Path(job.rows), load_tokenizer(model.path, None), Path(job.out_dir) / TOKENS))
    needs = training_needs(job, SftConfig.model_validate(job.config), model.config, lengths)
    peak_gib = result["gpu_peak_gib"] - there_gib
    assert 0.5 * (needs.memory.total_gib - CUDA_CONTEXT_GIB) < peak_gib < needs.memory.total_gib
    assert needs.fits


# --- sampling


def question(row):
    return row["prompt"]


def greedy_on_cpu(path, row):
    """What plain `generate` answers in float32."""
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(path, None)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    ids = torch.tensor([encode(tokenizer, render_prompt(tokenizer, question(row)))])
    output = model.generate(ids, max_new_tokens=128, do_sample=False, eos_token_id=tokenizer.eos_token_id)
    return tokenizer.decode(output[0, ids.shape[1] :]).removesuffix(tokenizer.eos_token)


@pytest.fixture
def start_engine(taught):
    engines = []

    def start(batching, temperature=0.0, **compute):
        spec = EngineSpec(
            model_path=taught / STUDENT,
            model_name="taught",
            sampling=Sampling(temperature=temperature, top_p=1.0, max_tokens=128),
            compute=SamplingCompute(**{"dtype": "bfloat16", "max_num_seqs": 4} | compute),
            chat_format=None,
            longest_messages=[max((question(row) for row in ROWS), key=lambda messages: len(messages[0]["content"]))],
        )
        engines.append(TransformersEngine(spec, batching))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def answers(engine):
    for number, row in enumerate(ROWS):
        assert engine.submit(Request((str(number), 0), question(row), number)) is None
    done = []
    while engine.num_in_flight:
        done += engine.step()
    assert [completion.error for completion in done if completion.error] == []
    return {int(completion.key[0]): completion for completion in done}


@pytest.mark.parametrize("batching", ["continuous", "static"])
def test_a_trained_student_says_on_the_gpu_what_it_says_on_a_cpu(taught, start_engine, batching):
    engine = start_engine(batching)
    found = answers(engine)
    expected = [greedy_on_cpu(taught / STUDENT, row) for row in ROWS]
    assert expected[0] == ROWS[0]["completion"][0]["content"]
    same = [found[number].text == text for number, text in enumerate(expected)]
    assert sum(same) >= 0.75 * NUM_ROWS, [found[0].text, expected[0]]
    assert {completion.finish_reason for completion in found.values()} == {"stop"}
    assert (engine.settings["device"] == "cpu") != ON_GPU


def test_answers_drawn_at_a_temperature_are_whole_as_well(start_engine):
    """The student is sure of its rows, so that even drawn tokens are those that it was taught, mostly."""
    found = answers(start_engine("continuous", temperature=0.6))
    right = [row["completion"][0]["content"] == found[number].text for number, row in enumerate(ROWS)]
    assert sum(right) >= 0.5 * NUM_ROWS, found[0].text


def test_the_closing_check_finds_that_the_student_thinks_answers_and_stops(taught):
    task = StudentCheck(str(taught / STUDENT), str(taught / "rows"), NUM_ROWS, 128, 1)
    seen = check_student(task)
    assert seen["warning"] is None
    assert seen["closes"] >= 0.5 * NUM_ROWS
    assert seen["stops"] >= 0.5 * NUM_ROWS


# --- the whole job


def test_a_whole_run_on_the_gpu(taught, tmp_path):
    """The student that knows the sums is the teacher; plan, sampling, filter, training and evaluation."""
    for needed in ("math_verify", "rensa"):
        pytest.importorskip(needed)
    problems = tmp_path / "sums.jsonl"
    with problems.open("w") as stream:
        for row in ROWS:
            answer = row["completion"][0]["content"].rpartition("{")[2].partition("}")[0]
            stream.write(json.dumps({"problem": question(row)[0]["content"], "answer": answer}) + "\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"""
name: taught
student: {taught / STUDENT}
problems:
  - source: file:{problems}
generate:
  teacher: {taught / STUDENT}
  samples_per_problem: 2
  sampling: {{temperature: 0.6, max_tokens: 128}}
  compute: {{engine: transformers}}
filter: {{readability: {{language: null}}}}
sft: {{max_length: 512, epochs: 1, batch_size: 2, learning_rate: 1.0e-4, compute: {{tracking: []}}}}
eval: {{held_out: 2, samples_per_problem: 1, sampling: {{max_tokens: 128}}, compute: {{engine: transformers}}}}
""")
    for words in (["plan"], ["run"]):
        command = [sys.executable, "-m", "distill", *words, str(recipe), "--run-dir", str(tmp_path / "runs"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-3_000:]
    summary = json.loads(done.stdout)
    assert summary["sft"]["device"]["on_gpu"] == ON_GPU
    assert summary["generate"]["num_samples"] == 2 * (NUM_ROWS - 2)
