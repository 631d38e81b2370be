"""Training on a CPU: the same numbers as transformers and TRL, with less work."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROWS = [
    {
        "prompt": [{"role": "user", "content": f"What is {i} + {i + 1}?" + " Think it through." * i}],
        "completion": [{"role": "assistant", "content": f"<think>\n{i} + {i + 1}\n</think>\n\n{2 * i + 1}."}],
    }
    for i in range(4)
]


def make_trainer(folder: Path, tmp_path: Path, attention: str = "sdpa", **arguments: Any) -> Any:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from distill.training.cpu import ROW_BY_ROW, set_attention_row_by_row

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if attention == ROW_BY_ROW:
        set_attention_row_by_row(model)
    arguments = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none"} | arguments
    return SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(tmp_path), max_length=None, per_device_train_batch_size=4, **arguments),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )


def one_step(trainer: Any) -> tuple[float, dict[str, Any], dict[str, list[float]]]:
    """Loss, gradients by parameter, and TRL's metrics of all rows."""
    import torch

    batch = next(iter(trainer.get_train_dataloader()))
    num_items = (batch["labels"] != -100).sum()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=trainer.args.bf16):
        loss = trainer.training_step(trainer.model, batch, num_items)
    gradients = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    return loss.item(), gradients, dict(trainer._metrics["train"])


def distance(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest relative error of a gradient."""
    return max(((ours[name] - theirs[name]).norm() / theirs[name].norm()).item() for name in theirs)


def test_rows_end_to_end_give_the_gradients_of_padded_rows(tiny_llama, tmp_path):
    from distill.training.cpu import ROW_BY_ROW

    padded = one_step(make_trainer(tiny_llama, tmp_path))
    laid = one_step(make_trainer(tiny_llama, tmp_path, ROW_BY_ROW, padding_free=True))
    assert laid[0] == pytest.approx(padded[0], rel=1e-5)
    assert distance(laid[1], padded[1]) < 1e-4


@pytest.mark.parametrize("window", [None, 5, 100])
def test_a_row_sees_itself_alone(window):
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from distill.training.cpu import can_attend_row_by_row, set_attention_row_by_row

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=50, num_key_value_heads=2, sliding_window=window, **sizes)
    model = MistralForCausalLM(config).eval()
    rows = [torch.randint(0, 50, (1, length)) for length in (3, 17, 8)]
    alone = torch.cat([model(input_ids=row).logits for row in rows], dim=1)
    set_attention_row_by_row(model)
    assert can_attend_row_by_row(model)
    together = model(
        input_ids=torch.cat(rows, dim=1),
        position_ids=torch.cat([torch.arange(row.shape[1]) for row in rows])[None],
        cu_seq_lens_q=torch.tensor([0, 3, 20, 28]),
    ).logits
    assert torch.allclose(alone, together, atol=1e-5)


def test_layers_that_carry_a_state_over_rows_are_not_laid_end_to_end():
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    from distill.training.cpu import can_attend_row_by_row

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = Qwen3NextConfig(vocab_size=50, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8, **sizes)
    assert "linear_attention" in config.layer_types
    assert not can_attend_row_by_row(Qwen3NextForCausalLM(config))


@pytest.mark.parametrize("tile", [1 << 24, 49_152 * 3])
@pytest.mark.parametrize("lay", [False, True])
def test_the_loss_its_gradients_and_metrics_are_those_of_trl(tiny_llama, tmp_path, monkeypatch, tile, lay):
    from distill.training import cpu

    monkeypatch.setattr(cpu, "TILE_NUMBERS", tile)
    attention = cpu.ROW_BY_ROW if lay else "sdpa"
    theirs = one_step(make_trainer(tiny_llama, tmp_path, attention, padding_free=lay))
    trainer = make_trainer(tiny_llama, tmp_path, attention, padding_free=lay)
    assert cpu.score_completions_once(trainer)
    ours = one_step(trainer)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert distance(ours[1], theirs[1]) < 1e-4
    for name in ("entropy", "mean_token_accuracy", "num_tokens"):
        assert ours[2][name] == pytest.approx(theirs[2][name], rel=1e-4)


def test_in_bfloat16_the_gradients_are_as_near_to_float32_as_those_of_trl(tiny_llama, tmp_path):
    from distill.training.cpu import score_completions_once

    exact = one_step(make_trainer(tiny_llama, tmp_path))
    theirs = one_step(make_trainer(tiny_llama, tmp_path, bf16=True))
    trainer = make_trainer(tiny_llama, tmp_path, bf16=True)
    assert score_completions_once(trainer)
    ours = one_step(trainer)
    assert ours[0] == pytest.approx(exact[0], rel=1e-3)
    assert distance(ours[1], exact[1]) < 1.1 * distance(theirs[1], exact[1])


def test_only_the_adapter_learns_with_lora(tiny_llama, tmp_path):
    from peft import LoraConfig, get_peft_model

    from distill.training.cpu import score_completions_once

    losses = []
    for replace in (False, True):
        trainer = make_trainer(tiny_llama, tmp_path)
        trainer.model = get_peft_model(trainer.model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
        if replace:
            assert score_completions_once(trainer)
        loss, gradients, _ = one_step(trainer)
        losses.append(loss)
        assert {name for name, gradient in gradients.items() if gradient is not None} == {
            name for name in gradients if "lora_" in name
        }
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_evaluation_needs_no_gradients(tiny_llama, tmp_path):
    import torch
    from datasets import Dataset

    from distill.training.cpu import score_completions_once

    trainer = make_trainer(tiny_llama, tmp_path)
    held = Dataset.from_list(ROWS)
    theirs = trainer.evaluate(held)["eval_loss"]
    assert score_completions_once(trainer)
    with torch.no_grad():
        assert trainer.evaluate(held)["eval_loss"] == pytest.approx(theirs, rel=1e-5)


def test_a_pass_without_completion_tokens_adds_nothing(tiny_llama, tmp_path):
    from distill.training.cpu import score_completions_once

    trainer = make_trainer(tiny_llama, tmp_path)
    assert score_completions_once(trainer)
    batch = next(iter(trainer.get_train_dataloader()))
    batch["labels"] = batch["labels"].fill_(-100)
    assert trainer.training_step(trainer.model, batch, 7).item() == 0
    assert all(not parameter.grad.any() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("change", [{"loss_type": "dft"}, {"label_smoothing_factor": 0.1}, "final_logit_softcapping"])
def test_losses_with_additions_keep_those_of_trl(tiny_llama, tmp_path, change):
    from distill.training.cpu import score_completions_once

    trainer = make_trainer(tiny_llama, tmp_path, **({} if isinstance(change, str) else change))
    if isinstance(change, str):
        setattr(trainer.model.config, change, 30.0)
    forward = trainer.model.forward
    assert not score_completions_once(trainer)
    assert trainer.model.forward == forward


def test_uneven_weights_are_refused():
    import torch

    from distill.training.cpu import CompletionScores

    hidden, weight = (torch.randn(size, 4, requires_grad=True) for size in (3, 9))
    log_probs = CompletionScores.apply(hidden, weight, torch.tensor([1, 5, 2]), True)[0]
    with pytest.raises(RuntimeError, match="alike"):
        (log_probs * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
