"""The saved student and its closing check, with tiny models for real."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import StageError
from distill.execution.jobs import JOBS
from distill.models.tokenizers import load_tokenizer, template_text
from distill.training import student
from distill.training.student import Base, StudentCheck, check_student, save_student

pytestmark = pytest.mark.slow

PROMPT = [{"role": "user", "content": "What is 1 + 1?"}]
THOUGHT = "<think>\n1 and 1 make 2.\n</think>\n\n\\boxed{2}"


@pytest.fixture(scope="module")
def tiny_qwen(smollm2, tmp_path_factory):
    """A two-layer Qwen2 in bfloat16 whose output is not tied to its embedding, with another end of text than chat's."""
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
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 300_000.0},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("tiny-qwen")
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder, **more):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **more)


def with_adapter(folder):
    """A LoRA adapter that is not nothing: its B is not 0."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    model = get_peft_model(load(folder), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def logits(model, ids=((1, 2, 3, 40, 500, 6_000),)):
    import torch

    with torch.inference_mode():
        return model.eval()(torch.tensor(ids)).logits


def files_of(folder):
    return {path.name for path in folder.iterdir()}


def test_a_full_student_has_all_that_vllm_and_transformers_look_for(tmp_path, tiny_qwen):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(tiny_qwen, None, template=template_text("chatml"))
    model = load(tiny_qwen)
    with torch.no_grad():
        model.lm_head.weight += 0.5
    save_student(model, tokenizer, tmp_path, Base("org/base", tiny_qwen))
    folder = tmp_path / "student"
    assert files_of(tmp_path) == {"student"}
    assert files_of(folder) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["model_type"] == "qwen2"
    assert config["dtype"] == "bfloat16"
    assert config["rope_parameters"]["rope_theta"] == 300_000.0
    assert config["max_position_embeddings"] == 256
    assert config["use_cache"] is True
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert config["eos_token_id"] == stop
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [stop, 0]  # the trained one first, then the base's end of text
    assert (generation["temperature"], generation["top_p"], generation["do_sample"]) == (0.6, 0.95, True)
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert torch.equal(weights["lm_head.weight"], model.lm_head.weight.to(torch.bfloat16))
    saved = AutoTokenizer.from_pretrained(folder)
    assert (saved.eos_token, saved.padding_side) == ("<|im_end|>", "left")
    assert saved.chat_template == template_text("chatml")
    # The trained model stays as it was.
    assert model.lm_head.weight.dtype == torch.float32
    assert not [path for path in folder.iterdir() if str(tmp_path.parent) in path.read_text(errors="ignore")]


def test_tied_weights_are_saved_once_and_stay_tied(tmp_path, tiny_llama):
    import torch
    from safetensors.torch import load_file

    model = load(tiny_llama)
    with torch.no_grad():
        model.model.embed_tokens.weight += 0.1
    save_student(model, load_tokenizer(tiny_llama, None), tmp_path, Base("org/base", tiny_llama))
    assert "lm_head.weight" not in load_file(tmp_path / "student" / "model.safetensors")
    again = load(tmp_path / "student")
    assert again.lm_head.weight.data_ptr() == again.model.embed_tokens.weight.data_ptr()
    assert torch.equal(logits(again), logits(model))
    generation = json.loads((tmp_path / "student" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2  # the base's end of text is the stop token


def test_large_weights_go_to_several_files(tmp_path, tiny_llama, monkeypatch):
    import torch

    monkeypatch.setattr(student, "MAX_FILE", "100KB")
    model = load(tiny_llama)
    save_student(model, load_tokenizer(tiny_llama, None), tmp_path, Base("org/base", tiny_llama))
    assert "model.safetensors.index.json" in files_of(tmp_path / "student")
    assert torch.equal(logits(load(tmp_path / "student")), logits(model))


def test_weights_that_other_processes_gave_are_saved(tmp_path, tiny_llama):
    import torch

    model = load(tiny_llama)
    gathered = {name: tensor + 1 for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    gathered["lm_head.weight"] = gathered["model.embed_tokens.weight"]
    save_student(model, load_tokenizer(tiny_llama, None), tmp_path, Base("org/base", tiny_llama), gathered)
    assert torch.equal(load(tmp_path / "student").model.norm.weight, model.model.norm.weight + 1)


@pytest.mark.parametrize("base", ["tiny_llama", "tiny_qwen"])
def test_the_merged_model_says_what_base_and_adapter_say(tmp_path, request, base):
    import torch
    from peft import PeftModel

    path = request.getfixturevalue(base)
    model = with_adapter(path)
    before = logits(model)
    assert (before - logits(load(path))).abs().max() > 1e-2
    tokenizer = load_tokenizer(path, None, template=template_text("chatml"))
    save_student(model, tokenizer, tmp_path, Base("org/base", path, "a" * 40))
    assert files_of(tmp_path) == {"student", "adapter"}
    assert files_of(tmp_path / "adapter") == {"adapter_config.json", "adapter_model.safetensors"}
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("org/base", "a" * 40)
    adapted = PeftModel.from_pretrained(load(path), str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(adapted), before, rtol=0, atol=1e-5)
    # A base in bfloat16 gives a student in bfloat16, whose own rounding shows.
    tolerance = 1e-4 if base == "tiny_llama" else 2e-2
    torch.testing.assert_close(logits(load(tmp_path / "student")), before, rtol=0, atol=tolerance)


def test_an_adapter_that_is_not_finite_is_not_merged(tmp_path, tiny_llama):
    import torch

    model = with_adapter(tiny_llama)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, float("nan"))
    with pytest.raises(StageError, match=r"cannot be merged.*Lower sft\.learning_rate"):
        save_student(model, load_tokenizer(tiny_llama, None), tmp_path, Base("org/base", tiny_llama))
    assert not (tmp_path / "student").exists()


def test_a_pickle_is_never_saved(tmp_path, tiny_llama, monkeypatch):
    def write_pickle(folder, *args):
        (folder / "training_args.bin").write_bytes(b"\x80")

    monkeypatch.setattr(student, "describe", write_pickle)
    with pytest.raises(StageError, match=r"training_args\.bin"):
        save_student(load(tiny_llama), load_tokenizer(tiny_llama, None), tmp_path, Base("org/base", tiny_llama))
    assert not (tmp_path / "student").exists()


# --- the closing check ---


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    rows = [{"prompt": PROMPT, "completion": [{"role": "assistant", "content": THOUGHT}]}] * 3
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder


@pytest.fixture(scope="module")
def graduate(tiny_llama, tmp_path_factory):
    """A tiny student that has learnt one answer by heart."""
    import torch

    tokenizer = load_tokenizer(tiny_llama, None)
    model = load(tiny_llama).train()
    text = tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": THOUGHT}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss, num_steps = float("inf"), 0
    # Until it knows the answer: how many steps that takes depends on how this CPU rounds.
    while loss > 0.01 and num_steps < 600:
        step = model(ids, labels=ids).loss
        step.backward()
        optimiser.step()
        optimiser.zero_grad()
        loss, num_steps = step.item(), num_steps + 1
    assert loss <= 0.01
    folder = tmp_path_factory.mktemp("graduate")
    save_student(model, tokenizer, folder, Base("org/base", tiny_llama))
    return folder / "student"


def check(folder, kept, **more):
    task = {"student": str(folder), "kept": str(kept), "num_rows": 3, "typical_tokens": 48, "seed": 0}
    return check_student(StudentCheck(**(task | more)))


def test_a_student_that_has_learnt_thinks_answers_and_stops(graduate, kept):
    result = check(graduate, kept)
    assert (result["num_prompts"], result["thinks"], result["closes"]) == (3, 3, 3)
    assert (result["answers"], result["stops"], result["num_limited"]) == (3, 3, 0)
    assert result["example"]["text"] == THOUGHT
    assert result["warning"] is None
    json.dumps(result)


def test_a_student_that_has_learnt_nothing_is_told_loudly(tiny_llama, kept):
    result = check(tiny_llama, kept)
    assert result["thinks"] == result["closes"] == 0
    assert re.search(r"did not once open a thought with <think>.* within 48 tokens.*epochs", result["warning"])


def test_answers_that_could_not_come_to_their_end_are_not_held_against_the_student(graduate, kept, monkeypatch):
    monkeypatch.setitem(student.MAX_NEW_TOKENS, "cpu", 8)
    result = check(graduate, kept, typical_tokens=5_000)
    assert (result["thinks"], result["closes"], result["num_limited"]) == (3, 0, 3)
    assert result["warning"] is None


def test_a_student_that_does_not_load_or_is_not_finite_fails_the_stage(graduate, kept, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(graduate, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match="not finite"):
        check(broken, kept)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(StageError, match="the saved student cannot be loaded"):
        check(broken, kept)


def test_the_closing_check_is_a_job_of_its_own(graduate, kept, tmp_path):
    """In a process of its own it starts without training's memory, and as a stranger would."""
    from distill.execution.jobs import run_job

    assert JOBS["check_student"] == ("distill.training.student", "StudentCheck", "check_student")
    result, _ = run_job("check_student", StudentCheck(str(graduate), str(kept), 3, 48, 0), Path(tmp_path))
    assert result["closes"] == 3
