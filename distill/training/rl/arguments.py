"""Arguments of TRL's GRPOTrainer, from a recipe's `rl:` and this machine's hardware."""

from pathlib import Path
from typing import Any

from distill.errors import ModelError
from distill.recipe.rl import RlConfig
from distill.results.sft import Device
from distill.training.arguments import common_arguments
from distill.training.layout import Layout
from distill.training.rl.job import RlJob
from distill.training.sharding import layer_names, sharding_arguments

DEFAULTS = {
    "scale_rewards": "group",
    "importance_sampling_level": "token",
    # TRL's own default leaves a long answer out as a whole when its tokens' gaps add up.
    "vllm_importance_sampling_mode": "token_truncate",
}
LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "dapo": {"loss_type": "dapo"},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "cispo": {"loss_type": "cispo"},
}
"""`rl.loss` -> TRL's arguments, as its paper index gives them (TRL 1.16, docs/source/paper_index.md)."""


def policy_arguments(job: RlJob, config: RlConfig, layout: Layout, device: Device) -> Any:
    """Return TRL's GRPOConfig.

    Args:
        job: the training job.
        config: `rl:` of the recipe.
        layout: processes, rows per pass, sharding.
        device: settings that depend on the hardware.

    Raises:
        ModelError: `rl.trl` has an argument that TRL lacks.
    """
    from trl.trainer.grpo_config import GRPOConfig

    compute = config.compute.training
    if job.only_check:
        # Nothing is trained that could be followed, and TRL's profiler fails where no tracker was started.
        compute = compute.model_copy(update={"tracking": []})
    layers = layer_names(Path(job.model_path)) if layout.sharding == "fsdp" else []
    try:
        return GRPOConfig(
            **(DEFAULTS | LOSSES[config.loss] | config.trl),
            **common_arguments(job, compute, layout, device, "rl"),
            max_steps=config.steps,
            # One update an answer: what is sampled for a step is used in it alone.
            steps_per_generation=layout.accumulation,
            num_iterations=1,
            num_generations=config.group_size,
            max_completion_length=config.max_tokens,
            temperature=config.temperature,
            beta=config.kl,
            epsilon=config.clip.low,
            # cispo's is a bound of the weight itself, the others' a distance from 1.
            epsilon_high=config.clip.high + (config.loss == "cispo"),
            learning_rate=config.peak_learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=config.warmup_steps,
            max_grad_norm=config.max_grad_norm,
            shuffle_dataset=False,  # `Steps` has an order of its own, which a resume can restore
            disable_dropout=True,  # the log-probabilities of an answer should be those that it was sampled with
            remove_unused_columns=False,
            use_liger_kernel=False,
            save_steps=config.save_every_steps,
            **sharding_arguments(layout, config.as_sft, layers, device.gradient_checkpointing),
        )
    except TypeError as error:
        raise ModelError(f"rl.trl: {str(error).rpartition('.')[2].strip()} (TRL's GRPOConfig).") from None
