"""The engine of the rollouts: vLLM with the policy's weights, or the trained module itself."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from distill.core.records import Problem
from distill.engines.base import EngineSpec, PolicyEngine
from distill.engines.start import pick_engine, start_engine
from distill.engines.weights import policy_weights
from distill.errors import ModelError
from distill.models.tokenizers import Tokenizer
from distill.recipe.rl import RlConfig
from distill.recipe.sampling import Sampling
from distill.storage.files import disk_errors
from distill.training.rl.job import GPU_MEMORY_SHARE, POLICY, RlJob

NUM_LONGEST = 8
"""Longest prompts by characters, one of which determines the context."""
TOKENIZER_FILES = ("tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template")
"""How the names of a tokenizer's files begin."""
MEMORY_SHARE = 0.5
"""Of the free memory, for the engine: the other half is for training."""


class RolloutEngine(NamedTuple):
    """An engine, and what its sharing a process with training means."""

    engine: PolicyEngine
    corrects_sampling: bool
    """Whether its arithmetic differs from the trained module's, so that the loss has to correct for that."""
    is_shared: bool
    """Whether it samples with the trained module itself."""
    sleeps: bool = False
    """Whether it gives a GPU's memory back while gradients are computed."""

    def update(self, model: Any) -> None:
        """Bring the policy's weights into the engine, which may have been asleep."""
        if self.sleeps:
            import torch

            torch.cuda.empty_cache()  # training's cache may hold what the engine had
            self.engine.wake()
        if not self.is_shared:
            self.engine.update_weights(policy_weights(model))

    def rest(self) -> None:
        """Leave a GPU's memory to training."""
        if self.sleeps:
            self.engine.sleep()


def start_policy_engine(
    job: RlJob, config: RlConfig, model: Any, tokenizer: Tokenizer, problems: Mapping[str, Problem], on_gpu: bool
) -> RolloutEngine:
    """Start the engine that the recipe asks for.

    Args:
        job: the training job.
        config: `rl:` of the recipe.
        model: the policy, whole or (with LoRA) with its adapter.
        tokenizer: the policy's.
        problems: all that will be asked.
        on_gpu: whether training and sampling share GPUs.

    Raises:
        ModelError: the engine cannot be started.
    """
    compute = config.compute.sampling
    if on_gpu and "gpu_memory_share" not in compute.model_fields_set:
        compute = compute.model_copy(update={"gpu_memory_share": GPU_MEMORY_SHARE})
    if not on_gpu and compute.dtype == "auto":
        # The trained weights are float32, and an update is often below bfloat16's precision: the engine would go on
        # with the old weights, and its log-probabilities would drift away from the policy's.
        compute = compute.model_copy(update={"dtype": "float32"})
    by_length = sorted(problems.values(), key=lambda one: sum(len(m["content"]) for m in one.prompt), reverse=True)
    spec = EngineSpec(
        model_path=policy_folder(job, tokenizer),
        model_name=job.model_name,
        sampling=Sampling(temperature=config.temperature, top_p=1.0, max_tokens=config.max_tokens),
        compute=compute,
        chat_format=None,
        longest_messages=[one.prompt for one in by_length[:NUM_LONGEST]],
        logprobs=True,
        updates=True,
        sleeps=on_gpu,
        memory_share=MEMORY_SHARE,
    )
    if _shares_module(config, on_gpu):
        if on_gpu and job.layout["sharding"] != "none":
            # Its processes would wait for each other at every token, and answers end at different ones.
            raise ModelError(
                "rl.compute.sampling.engine: transformers cannot sample from a model whose weights several GPUs share. "
                "Install vLLM, or set rl.compute.training.sharding: none."
            )
        from distill.engines.transformers import TransformersEngine

        return RolloutEngine(TransformersEngine(spec, model=model), corrects_sampling=False, is_shared=True)
    return RolloutEngine(cast(PolicyEngine, start_engine(spec)), corrects_sampling=True, is_shared=False, sleeps=on_gpu)


def _shares_module(config: RlConfig, on_gpu: bool) -> bool:
    # On a CPU, vLLM would take the group of the training processes for its own.
    in_group = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not on_gpu
    return in_group or pick_engine(config.compute.sampling) == "transformers"


def policy_folder(job: RlJob, tokenizer: Tokenizer) -> Path:
    """Return a folder with the student's files and the tokenizer of the training, whose template and stop token count.

    Raises:
        StoreError: the disk is full or not writable.
    """
    folder = Path(job.out_dir) / POLICY / os.environ.get("RANK", "0")  # each process has its own
    with disk_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in Path(job.model_path).iterdir():
            if file.is_file() and not file.name.startswith(TOKENIZER_FILES):
                (folder / file.name).symlink_to(file.resolve())
        tokenizer.save_pretrained(folder)
    return folder
