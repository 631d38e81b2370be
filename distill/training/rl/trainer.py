"""TRL's GRPOTrainer on stored answers: sampled, scored, kept and read back by us; advantages and loss are TRL's.

Read in TRL 1.16 (`trl/trainer/grpo_trainer.py`): a step samples in `_generate`, rewards in `_calculate_rewards`, and
works out advantages in `_generate_and_score_completions`; `use_vllm`, set after construction, makes the loss weigh each
token by how much likelier the trained weights find it than the engine did (truncated importance sampling).
"""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from trl.models.utils import _ForwardRedirection
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from distill.engines.weights import CHECKPOINTED
from distill.errors import ModelError
from distill.recipe.rl import SAMPLED, RlConfig
from distill.storage.files import read_json, write_json
from distill.training.checkpoints import CheckpointSealer
from distill.training.rl.divergence import Targets, Toward, can_project, divergence_loss
from distill.training.rl.packed import can_pack, packed_log_probs, packed_states, set_shared_prompts
from distill.training.rl.rollouts import Rollout
from distill.training.rl.steps import Steps, facts_of_step
from distill.training.rl.teachers import Teaching

STATE = "distill_rl.json"
"""In a checkpoint: what the order of the problems depends on."""
REFERENCE = "reference.safetensors"
"""In a checkpoint: weights of the reference model, once it has been reset."""
PLACE = "place"
"""Key of a row: number of its answer among those of the step."""
REFERENCE_ADAPTER = "ref"
"""TRL's name of the adapter that is the reference of a LoRA policy."""


class PolicyTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer whose answers come from `Steps`."""

    def __init__(
        self,
        config: RlConfig,
        owner: str,
        num_kept: int,
        packs: bool = False,
        **arguments: Any,
    ) -> None:
        """Create the trainer; `steps` and `sync` must be set before it trains.

        Args:
            config: `rl:` of the recipe.
            owner: fingerprint stored with checkpoints.
            num_kept: number of newest checkpoints to keep.
            packs: whether to compute a prompt once for all of its answers (`distill.training.rl.packed`).
            arguments: GRPOTrainer's own.
        """
        self.config = config
        self.steps: Steps | None = None
        self.sync: Callable[[], str] = lambda: ""
        """Brings the weights into the engine, and returns their hash."""
        self.after_sampling: Callable[[], None] = lambda: None
        """Called once a step's answers are there, before gradients are computed."""
        self.before_step: Callable[[int], None] = lambda step: None
        """Called with the number of updates so far, once the engine has the weights."""
        self.more_state: Callable[[], dict[str, Any]] = dict
        """What else belongs into a checkpoint, as JSON."""
        self.teaching: Teaching | None = None
        """With `algorithm: distill`."""
        self.facts: dict[str, float] = {}
        """What the answers of the current step are like."""
        self._sealing = CheckpointSealer(owner, num_kept)
        self._current: list[Rollout] = []
        self._has_reset = False
        super().__init__(reward_funcs=[_no_reward], **arguments)
        self._corrects = False
        self._in_loss: dict[str, Any] | None = None
        """Rows of the pass whose loss is being computed."""
        if config.divergence != SAMPLED and not can_project(self.model):
            raise ModelError(f"rl.divergence: {config.divergence}: the student scales its logits. Use sampled.")
        self._packs = packs and not self._entropy_bonus_enabled and can_pack(self.model)
        if self._packs:
            for one in (self.model, self.ref_model):
                if one is not None:
                    set_shared_prompts(one)

    def corrects_sampling(self) -> None:
        """Weigh tokens by how much likelier the trained model finds them than the engine, whose arithmetic differs."""
        # Not before: with it, the constructor would start TRL's own vLLM.
        self._corrects = True
        self.use_vllm = not self._packs

    # --- What a step learns from ---

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        assert self.steps is not None
        step = self.state.global_step
        if self.is_fsdp_enabled and self.ref_model is not None and not self._has_reset:
            # Rank 0 alone has read its weights, and nobody gives the others their shares (TRL 1.16, `prepare_fsdp`).
            self.reset_reference()
        policy = self.sync()
        self.before_step(step)
        self._current = self.steps.of(step, policy)
        self.after_sampling()
        if len(self._current) != len(inputs):
            raise RuntimeError(f"rl: {len(self._current)} answers for {len(inputs)} rows of a step")
        self._note_step()
        return self._learnable(inputs)

    def _learnable(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the current answers as rows, with what the loss needs to know of each."""
        found: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.config.divergence != SAMPLED:
            found[PLACE] = torch.arange(len(inputs), device=found["completion_mask"].device)
        elif self.config.algorithm == "distill":
            found["advantages"] = self._against_teachers(found)
        return found

    def _against_teachers(self, found: dict[str, Any]) -> torch.Tensor:
        """Return the advantage of each token, (B, T): how much likelier the teachers find it than the policy did.

        The mean over answers of the policy is the negative reverse KL divergence, of which this is the gradient
        (https://thinkingmachines.ai/blog/on-policy-distillation/).
        """
        advantages = torch.zeros_like(found["completion_mask"], dtype=torch.float32)
        for row, one in enumerate(self._current):
            if not one.teacher_logprobs:  # it could not be sampled
                continue
            told, own = (torch.tensor(values, dtype=torch.float32) for values in (one.teacher_logprobs, one.logprobs))
            advantages[row, : len(one.ids)] = (told - own).to(advantages.device)
        return advantages + self.config.task_weight * found["advantages"].unsqueeze(1)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if self._packs:
            return self._unshuffled(generation_batch)
        # A seed of its own for the order of the rows, so that a resume does not depend on torch's global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.args.seed + self.state.global_step)
            return super()._prepare_inputs(generation_batch)

    def _unshuffled(self, generation_batch: Any) -> Any:
        """Return the rows of a pass, in the order of the groups: TRL would part the answers to a prompt."""
        num_passes = self.args.steps_per_generation
        if self._step % num_passes == 0:
            found = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(found, num_passes)
        assert self._buffered_inputs is not None
        return self._buffered_inputs[self._step % num_passes]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        if not self._packs:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[no-any-return]
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **more
            )
        if compute_entropy and self._in_loss is not None:
            log_probs, entropies = packed_log_probs(model, input_ids, attention_mask, logits_to_keep, self.temperature)
            self._note_mismatch(self._in_loss, log_probs.detach())
            return log_probs, entropies, None
        size = batch_size or input_ids.shape[0]
        parts = [
            packed_log_probs(model, ids, mask, logits_to_keep, self.temperature)
            for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True)
        ]
        log_probs, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return log_probs, entropies if compute_entropy else None, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self.config.divergence != SAMPLED:
            return self._divergence(model, inputs)
        if not self._packs or not self.model.training:
            return super()._compute_loss(model, inputs)  # type: ignore[no-any-return]
        if self.skips_flat_groups and not inputs["advantages"].any():
            # Nothing but zeros would come of it, which move the optimiser's moments and let weights decay all the same.
            for one in model.parameters():
                if one.requires_grad and one.grad is None:
                    one.grad = torch.zeros_like(one)
            return next(one for one in model.parameters() if one.requires_grad).flatten()[0] * 0.0
        # TRL would run the policy once more, before the first update, to compare it with the engine. These are the same
        # weights, so the pass that has the gradient says it too.
        self._in_loss, self.use_vllm = inputs, self._corrects
        try:
            return super()._compute_loss(model, inputs)  # type: ignore[no-any-return]
        finally:
            self._in_loss, self.use_vllm = None, False

    def _divergence(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the loss of a pass: the divergence from the teachers, averaged over tokens as `rl.loss` says."""
        assert self.teaching is not None
        rollouts = [self._current[place] for place in inputs[PLACE].tolist()]
        mask = inputs["completion_mask"].clone()
        for row, one in enumerate(rollouts):
            if not one.is_sampled:
                mask[row] = 0
        targets = self.teaching.targets([one for one, real in zip(rollouts, mask.any(1), strict=True) if real])
        # Through the wrapper's own `forward`, as DDP and FSDP have their hooks there.
        policy = self.accelerator.unwrap_model(model)
        loss, divergence, entropy = _ForwardRedirection()(
            model, policy, self._divergence_of, policy, inputs, mask, self._shares(inputs, mask), targets
        )
        num = self.accelerator.reduce(mask.sum(), reduction="sum").clamp(min=1)
        for name, values in (("divergence", divergence), ("entropy", entropy)):
            total = self.accelerator.reduce(values.sum(), reduction="sum")
            self._metrics["train"][name].append((total / num).item())
        return loss

    def _divergence_of(
        self, policy: Any, inputs: dict[str, Any], mask: torch.Tensor, shares: torch.Tensor, targets: list[Targets]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        base = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attended = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        num_columns = mask.shape[1]
        if self._packs:
            packed, states = packed_states(base, ids, attended, num_columns)
            # One answer after the other, in the order of the rows.
            order = (packed.rows * num_columns + packed.columns).argsort()
            states = states[order][mask[packed.rows, packed.columns].bool()[order]]
        else:
            states = base.base_model(input_ids=ids, attention_mask=attended, use_cache=False).last_hidden_state
            states = states[:, -num_columns - 1 : -1][mask.bool()]
        toward: Toward = "forward" if self.config.divergence == "forward" else "reverse"
        weight = base.get_output_embeddings().weight
        if isinstance(weight, DTensor):
            weight = weight.full_tensor()
        return divergence_loss(states, weight, shares[mask.bool()], targets, toward)

    def _shares(self, inputs: dict[str, Any], mask: torch.Tensor) -> torch.Tensor:
        """Return the share of each token in the mean that `rl.loss` takes, (B, C); as in TRL's own loss."""
        num_rows, passes = mask.shape[0], self.current_gradient_accumulation_steps
        if self.config.loss == "dapo":
            each = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
            return mask / each
        if self.config.loss == "dr_grpo":
            return mask / (num_rows * self.max_completion_length * passes)
        return mask / (inputs["completion_mask"].sum(1, keepdim=True).clamp(min=1) * num_rows * passes)

    @property
    def skips_flat_groups(self) -> bool:
        """Return whether passes without any advantage are left out, which changes no gradient."""
        return self._packs and self.beta == 0.0 and self.config.divergence == SAMPLED

    def _note_mismatch(self, inputs: dict[str, Any], log_probs: torch.Tensor) -> None:
        """Work out TRL's importance weights, and log how far the engine's log-probabilities are from the policy's."""
        if not self._corrects:
            return
        mask = inputs["completion_mask"]
        gap = torch.nan_to_num((log_probs - inputs["sampling_per_token_logps"]) * mask, nan=0.0)
        metrics = self._metrics["train"]
        metrics["sampling/sampling_logp_difference/mean"].append(float(gap.abs().sum() / mask.sum().clamp(min=1)))
        mode = self.vllm_importance_sampling_mode
        ratio = (gap.sum(-1, keepdim=True) if mode.startswith("sequence") else gap).exp()
        low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
        if mode.endswith("truncate"):
            ratio = ratio.clamp(min=low, max=high)
        else:
            is_outside = (ratio < (-math.inf if low is None else low)) | (ratio > (math.inf if high is None else high))
            ratio = ratio.masked_fill(is_outside, 0.0)
        inputs["importance_sampling_ratio"] = ratio

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        rollouts = self._current
        logprobs = [one.logprobs for one in rollouts] if self._corrects else None
        ids = [one.ids for one in rollouts]
        self.state.num_input_tokens_seen += sum(len(one.prompt_ids) + len(one.ids) for one in rollouts)
        return [one.prompt_ids for one in rollouts], ids, None, [one.text for one in rollouts], logprobs, {}, None, []

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        rewards = [float("nan") if one.reward is None else one.reward for one in self._current]
        found = torch.tensor(rewards, dtype=torch.float32, device=self.accelerator.device).unsqueeze(1)
        return self.accelerator.gather(found)

    def _note_step(self) -> None:
        """Keep what the step's answers are like for the log."""
        from accelerate.utils import gather_object

        assert self.steps is not None
        everything = gather_object(self._current) if self.accelerator.num_processes > 1 else self._current
        drawn = self.steps.last
        self.facts = facts_of_step(everything, self.config.group_size) | {
            "replaced": float(drawn.num_replaced),
            "sampling_seconds": drawn.seconds,
            "sampled_tokens": float(drawn.num_tokens),
        }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.facts)
            if self.skips_flat_groups:
                # Of the groups with variance alone; that of `facts` is of all.
                self._metrics["train"].pop("entropy", None)
        super().log(logs, start_time)

    def seconds_to_learn(self, rollouts: Sequence[Rollout]) -> float:
        """Return how long gradients for some answers take, without changing any weight.

        Args:
            rollouts: a multiple of `rl.group_size`.
        """
        began = time.monotonic()
        self._current = list(rollouts)
        self.model.train()
        found = self._learnable([{"prompt": ""} for _ in rollouts])
        self.current_gradient_accumulation_steps = 1
        self.compute_loss(self.model, found).backward()
        self.model.zero_grad()
        return time.monotonic() - began

    # --- The reference model ---

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        self._sealing.check()
        return super().training_step(model, inputs, num_items_in_batch)

    def reset_reference(self) -> None:
        """Make the current policy the reference."""
        if self.beta == 0.0:
            return
        self._has_reset = True
        policy = self.accelerator.unwrap_model(self.model)
        if self.ref_model is None:
            _ensure_reference_adapter(policy)
        active = {_plain(name): weight for name, weight in policy.named_parameters()}
        with torch.no_grad():
            if self.ref_model is not None:
                for name, weight in self.ref_model.named_parameters():
                    weight.copy_(active[_plain(name)])
                return
            for name, weight in policy.named_parameters():
                if f".{REFERENCE_ADAPTER}." in name:
                    weight.copy_(active[_plain(name).replace(f".{REFERENCE_ADAPTER}.", ".default.")])

    # --- Checkpoints ---

    def train(self, *arguments: Any, **named: Any) -> Any:
        """Train; all checkpoints are sealed on return."""
        with self._sealing:
            return super().train(*arguments, **named)

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """Write none: TRL would put one beside the checkpoints."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # One at a time, so that the previous checkpoint is complete whatever happens to this one.
        self._sealing.finish()
        super()._save_checkpoint(model, trial)
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        # peft saves the reference too, in a folder; with such a folder, transformers 5.17 loads folders alone on a
        # resume, and the policy, which lies beside it, not at all (`Trainer._load_from_checkpoint`).
        if self.is_world_process_zero():
            shutil.rmtree(checkpoint / REFERENCE_ADAPTER, ignore_errors=True)
            assert self.steps is not None
            order = self.steps.order
            state = {"position": order.position, "rates": order.rates, "reset": self._has_reset}
            write_json(checkpoint / STATE, state | self.more_state())
        if self._has_reset:
            self._save_reference(checkpoint / REFERENCE)
        # Other processes write files of their own into the checkpoint.
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self._sealing.start(checkpoint)

    def restore(self, checkpoint: Path) -> dict[str, Any]:
        """Take over what TRL's resume does not restore: order of the problems, reference, number of the pass.

        Returns:
            All that `more_state` gave, and what is restored here.
        """
        assert self.steps is not None
        state = read_json(checkpoint / STATE)
        order = self.steps.order
        order.position = int(state["position"])
        order.rates = {name: (int(right), int(graded)) for name, (right, graded) in state["rates"].items()}
        self._has_reset = bool(state["reset"])
        step = int(checkpoint.name.rpartition("-")[2])
        self._step = step * self.args.gradient_accumulation_steps
        if self._has_reset:
            self._load_reference(checkpoint / REFERENCE)
        return dict(state)

    def _save_reference(self, path: Path) -> None:
        from safetensors.torch import save_file

        found: dict[str, torch.Tensor] = {}
        for name, weight in self._reference().items():
            # All processes take part in gathering; the first keeps it.
            whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
            if self.is_world_process_zero():
                found[name] = whole.detach().cpu().clone()
        if self.is_world_process_zero():
            save_file(found, path)

    def _load_reference(self, path: Path) -> None:
        from safetensors import safe_open

        if self.ref_model is None:
            _ensure_reference_adapter(self.accelerator.unwrap_model(self.model))
        with torch.no_grad(), safe_open(path, "pt") as stored:
            for name, weight in self._reference().items():
                whole = stored.get_tensor(name).to(weight.device, weight.dtype)
                if isinstance(weight, DTensor):
                    whole = distribute_tensor(whole, weight.device_mesh, weight.placements)
                weight.copy_(whole)

    def _reference(self) -> dict[str, torch.Tensor]:
        if self.ref_model is not None:
            return dict(self.ref_model.named_parameters())
        policy = self.accelerator.unwrap_model(self.model)
        return {name: weight for name, weight in policy.named_parameters() if f".{REFERENCE_ADAPTER}." in name}


def _no_reward(completions: Sequence[Any], **ignored: Any) -> list[None]:
    """Stand in for TRL's reward functions; rewards come with the answers."""
    return [None] * len(completions)


def _plain(name: str) -> str:
    """Return a weight's name without the wrapper that recomputes activations."""
    return name.replace(CHECKPOINTED, "")


def _ensure_reference_adapter(policy: Any) -> None:
    if REFERENCE_ADAPTER not in policy.peft_config:
        policy.add_adapter(REFERENCE_ADAPTER, policy.peft_config["default"])
        for name, weight in policy.named_parameters():
            if f".{REFERENCE_ADAPTER}." in name:
                weight.requires_grad_(False)
