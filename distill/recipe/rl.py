"""The `rl:` section: how the student is improved by reinforcement learning on the training problems."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from distill.recipe.base import Share, Strict
from distill.recipe.generate import Example
from distill.recipe.rewards import RewardConfig
from distill.recipe.sampling import SamplingCompute
from distill.recipe.sft import OWNED_TRL_KEYS, Lora, SftConfig, TrainCompute

OWNED_GRPO_KEYS = (OWNED_TRL_KEYS - {"weight_decay", "warmup_steps"}) | {
    "beta",
    "cache_implementation",
    "disable_dropout",
    "epsilon",
    "epsilon_high",
    "generation_batch_size",
    "generation_kwargs",
    "importance_sampling_level",
    "log_completions",
    "loss_type",
    "max_completion_length",
    "min_p",
    "num_generations",
    "num_iterations",
    "ref_model_mixup_alpha",
    "ref_model_sync_steps",
    "repetition_penalty",
    "reward_weights",
    "scale_rewards",
    "shuffle_dataset",
    "steps_per_generation",
    "sync_ref_model",
    "temperature",
    "top_k",
    "top_p",
    "use_transformers_continuous_batching",
    "use_vllm",
    "vllm_mode",
}
"""GRPOConfig arguments that distill sets itself; `rl.trl` may not set them."""
SAMPLED = "sampled"
"""A value of `rl.divergence`."""
AVERAGES = ("grpo", "dapo", "dr_grpo")
"""Values of `rl.loss` that say how tokens are averaged, and nothing of ratios."""


class Clip(Strict):
    """Bounds of the probability ratio between the policy and the one that sampled. Each answer is used in one update
    alone, so that the ratio is 1 but for `loss: cispo` and arguments in `trl:`, and nothing is clipped."""

    low: PositiveFloat = 0.2
    """The ratio counts down to 1 - low. PPO's and GRPO's usual value (arXiv:2402.03300)."""
    high: PositiveFloat = 0.2
    """The ratio counts up to 1 + high; DAPO raises it to 0.28 (arXiv:2503.14476, 3.1)."""


class Difficulty(Strict):
    """Which problems are worth their rollouts: those that the policy sometimes solves."""

    low: Share = 0.0
    """Smallest share of right answers of a problem."""
    high: Share = 1.0
    """Largest share of right answers of a problem."""
    min_samples: PositiveInt = 8
    """Answers that a problem needs before its share counts."""

    @model_validator(mode="after")
    def _is_a_band(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class Probe(Strict):
    """A fixed set of held-out problems that the policy answers while it is trained; it never trains on them."""

    problems: NonNegativeInt = 32
    """Number of problems, taken from `eval.held_out`; 0: no probe."""
    samples_per_problem: PositiveInt = 1
    """Answers to each problem."""
    every: PositiveInt = 20
    """Steps between two measurements; the first is before training, the last after it."""
    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.6
    """Sampling temperature, with the whole vocabulary. Default: that of DeepSeek-R1's evaluation protocol."""


class Watch(Strict):
    """Limits of the detectors that watch training."""

    truncated: Share = 0.5
    """Largest share of answers cut off at `max_tokens`."""
    no_variance: Share = 0.9
    """Largest share of groups whose answers all have the same reward, so that they teach nothing."""
    entropy: tuple[float, float] = (0.005, 6.0)
    """Smallest and largest mean entropy of a token, in nats: below, the policy has collapsed; above, it rambles."""
    same_answers: Share = 0.9
    """Largest share of a step's answers to different problems that are the same."""
    dominance: Share = 0.95
    """Largest share of the reward's variance that a part other than accuracy may have."""
    disagreement: Share = 0.1
    """Largest share of the answers that a rule calls right and a stricter reading does not: several results, the
    question's own calculation left undone, a second thought, marks of the chat format."""
    window: PositiveInt = 10
    """Steps over which the limits are taken."""


class RlCompute(Strict):
    """Where sampling and training run; not part of a fingerprint."""

    sampling: SamplingCompute = SamplingCompute()
    """The engine of the rollouts. `engine: transformers` samples with the trained weights themselves."""
    training: TrainCompute = TrainCompute()
    """Layout of training."""
    resume: Literal["auto", "exact", "keep"] = "auto"
    """What becomes of the answers of a step that was interrupted while it was sampled. exact: they are set aside and
    drawn again, so that the weights are those of an unbroken run to the last bit; keep: only the missing ones are
    drawn. auto: exact without a GPU, where a step is short and arithmetic is repeatable, else keep."""


class RlConfig(Strict):
    """Stage 4: improve the student by reinforcement learning (GRPO) or on-policy distillation.

    The defaults are DeepSeek-R1-Zero's (arXiv:2501.12948v2, supplement: learning rate 3e-6, KL 0.001, temperature 1,
    16 answers to each of 32 problems a step, reference reset every 400 steps), unless a field says otherwise.
    """

    algorithm: Literal["grpo", "distill"] = "grpo"
    """grpo: the advantage of an answer is its reward against its group's; distill: teachers say what they expect where
    the student writes (on-policy distillation; `divergence` says what is reduced)."""
    loss: Literal["grpo", "dapo", "dr_grpo", "gspo", "cispo"] = "grpo"
    """grpo: mean over an answer's tokens, then over answers (arXiv:2402.03300); dapo: mean over all tokens of a step
    (arXiv:2503.14476); dr_grpo: constant divisor and no division by the deviation (arXiv:2503.20783); gspo: ratio of
    whole answers (arXiv:2507.18071); cispo: clipped importance weights (arXiv:2506.13585)."""
    method: Literal["full", "lora"] = "full"
    """full: all weights; lora: a LoRA adapter, merged at the end."""
    prompt_format: Literal["chat", "r1-zero"] = "chat"
    """chat: the student's chat template; r1-zero: the template of DeepSeek-R1-Zero for base models, which asks for
    `<think>` and `<answer>` (arXiv:2501.12948, table 1). The student is saved with it."""
    steps: PositiveInt = 1_000
    """Updates of the weights. DeepSeek-R1-Zero took 10,400; most published runs on small models take a few hundred."""
    prompts_per_step: PositiveInt = 32
    """Problems a step."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Answers to each problem, whose rewards are compared with each other."""
    learning_rate: PositiveFloat | None = None
    """Default: 3e-6 (full), or 3e-5 (lora), ten times as much as LoRA needs against full fine-tuning
    (https://thinkingmachines.ai/blog/lora/)."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from 0; it is constant afterwards."""
    max_grad_norm: PositiveFloat = 1.0
    """Largest norm of the gradient; larger ones are scaled down. The Trainer's own default."""
    kl: Annotated[float, Field(ge=0.0)] = 0.001
    """Weight of the KL divergence from the reference model; 0: no reference model."""
    reference_every: PositiveInt | None = 400
    """Steps after which the reference model becomes the current policy; null: it stays the student at the start."""
    clip: Clip = Clip()
    """Bounds of the probability ratio."""
    temperature: Annotated[float, Field(gt=0.0, le=5.0)] = 1.0
    """Sampling temperature of the rollouts."""
    max_tokens: PositiveInt = 1_024
    """Longest answer, in tokens. DeepSeek-R1-Zero had 32,768, later 65,536."""
    reward: RewardConfig = RewardConfig()
    """Parts of the reward and their weights."""
    difficulty: Difficulty = Difficulty()
    """Which problems are drawn, by their share of right answers so far: earlier verdicts of this run, and rollouts."""
    resample: NonNegativeInt = 0
    """How often a group without variance is replaced by a group for another problem, within a step (DAPO's dynamic
    sampling, arXiv:2503.14476, 3.2). What is replaced is stored too."""
    teachers: list[str] = []
    """With `algorithm: distill`: the teachers, as models or URLs of OpenAI-compatible servers that give prompt
    log-probabilities (`http://host:8000/v1#model`); their log-probabilities are averaged."""
    divergence: Literal["sampled", "reverse", "forward"] = "sampled"
    """With `algorithm: distill`: what is reduced, on the student's answers. sampled: the reverse KL, estimated from the
    log-probability of the sampled token alone; reverse: KL(student || teacher) over the whole vocabulary, which has
    much less noise; forward: KL(teacher || student), which also teaches tokens that the student would hardly write
    itself (arXiv:2306.13649). A served teacher tells its 20 likeliest tokens, and all others count as one."""
    teacher_examples: list[Example] = []
    """Worked examples that the teachers see before each problem, and the student does not. With them a model can be its
    own teacher (context distillation)."""
    teacher_system: str | None = None
    """System prompt for the teachers only."""
    task_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """With `algorithm: distill`: weight of the task's own advantages (`reward`) beside the teacher's."""
    probe: Probe = Probe()
    """Held-out problems that are answered while training."""
    watch: Watch = Watch()
    """Limits of the detectors."""
    on_warning: Literal["note", "stop"] = "note"
    """What a detector does when its limit is passed: say so, or end training with the best checkpoint kept."""
    save_every_steps: PositiveInt = 10
    """Steps between checkpoints."""
    lora: Lora | None = None
    """Settings of the adapter; only with `method: lora`."""
    trl: dict[str, Any] = {}
    """Extra arguments for TRL's GRPOConfig; those that distill sets itself are rejected."""
    compute: RlCompute = RlCompute()
    """Where it runs."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lora is not None and self.method == "full":
            raise ValueError("lora: is set but method is full. Set method: lora or remove lora:")
        if taken := sorted(OWNED_GRPO_KEYS & self.trl.keys()):
            raise ValueError(f"trl: {', '.join(taken)} is set by distill itself; use the fields of rl: instead")
        if self.algorithm == "distill" and not self.teachers:
            raise ValueError("algorithm: distill needs teachers:, e.g. teachers: [org/model]")
        if self.algorithm == "grpo" and self.teachers:
            raise ValueError("teachers: is for algorithm: distill. Set that, or remove teachers:")
        if self.algorithm == "grpo" and (self.teacher_examples or self.teacher_system is not None):
            raise ValueError("teacher_examples and teacher_system are for algorithm: distill. Set that, or remove them")
        if self.task_weight and self.algorithm == "grpo":
            raise ValueError("task_weight is for algorithm: distill; with grpo the reward is all there is")
        if self.divergence != SAMPLED:
            self._check_divergence()
        if not self.uses_rewards:
            if self.resample:
                raise ValueError("resample looks at rewards, which algorithm: distill does not use. Remove it")
            if self.temperature != 1.0 and self.divergence == SAMPLED:
                raise ValueError(
                    "temperature: with algorithm: distill the teachers' log-probabilities are those at 1. Remove it"
                )
        if self.compute.training.sequence_parallel > 1 or self.compute.training.sharding == "zero3":
            raise ValueError(
                "compute.training: rl: knows neither sequence_parallel nor zero3, whose weights no engine could be "
                "given. Use sharding: fsdp"
            )
        if self.compute.sampling.base_urls:
            raise ValueError(
                "compute.sampling.base_urls: a server cannot take the new weights of every step. Remove it; "
                "compute.sampling.replicas starts several copies on this machine"
            )
        return self

    @property
    def uses_rewards(self) -> bool:
        """Return whether rewards decide what is learnt, or part of it; else the teachers alone do."""
        return self.algorithm == "grpo" or self.task_weight > 0

    def _check_divergence(self) -> None:
        """Raise if other settings make no sense with a divergence over the whole vocabulary."""
        key = f"divergence: {self.divergence}"
        if self.algorithm == "grpo":
            raise ValueError(f"{key} is for algorithm: distill. Set that, or remove divergence:")
        if self.task_weight:
            raise ValueError(f"{key} has no advantages that task_weight could be added to. Use divergence: sampled")
        if self.kl:
            raise ValueError(f"{key} goes without a reference model. Set kl: 0")
        if self.loss not in AVERAGES:
            raise ValueError(f"{key} has no ratio for loss: {self.loss} to limit. Use one of {', '.join(AVERAGES)}")

    @property
    def as_sft(self) -> SftConfig:
        """Return the settings that both kinds of training have, as those of the supervised one."""
        # Rows are padded: TRL's loss cannot use an attention kernel that keeps packed ones apart.
        compute = self.compute.training.model_copy(update={"packing": False})
        return SftConfig(method=self.method, lora=self.lora, compute=compute)

    @property
    def peak_learning_rate(self) -> float:
        """Return the learning rate, or the method's default."""
        return self.learning_rate or (3e-5 if self.method == "lora" else 3e-6)
