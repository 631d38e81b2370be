"""What a recipe may say: strict models, their units, and the checks that span stages. Imports no torch.

Enters: a plain dict (see `distill.recipe.loading` for the way from a file to it). Leaves: a frozen `Recipe`.

    Recipe.model_validate({"name": "tiny", "student": "smollm2-135m", "problems": [{"source": "gym:chain_sum"}], …})
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from distill.models.hub_names import Config, EvaluationSet, Revision, Source, TableSource
from distill.models.students import find_student
from distill.recipe.lengths import ANSWER_TOKENS, ROW_TOKENS, reach_of, with_lengths

Language = Literal[
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "he", "hi", "hr", "hu", "id", "it", "ja",
    "ko", "lt", "lv", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "th", "tr", "uk", "vi", "zh",
]  # fmt: skip
"""Languages that `distill.filters.language` can tell apart, by script and by CLD2."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]

RepoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s?#@]*)?$")]
"""Without user, password or query: a key in a URL would end up in manifests."""

OWNED_TRL_KEYS = frozenset(
    {
        "accelerator_config",
        "assistant_only_loss",
        "auto_find_batch_size",
        "average_tokens_across_devices",
        "bf16",
        "chat_template_path",
        "completion_only_loss",
        "data_seed",
        "dataloader_drop_last",
        "dataloader_pin_memory",
        "dataset_kwargs",
        "dataset_num_proc",
        "dataset_text_field",
        "ddp_backend",
        "deepspeed",
        "disable_tqdm",
        "do_eval",
        "do_predict",
        "do_train",
        "enable_jit_checkpoint",
        "eos_token",
        "eval_on_start",
        "eval_packing",
        "eval_steps",
        "eval_strategy",
        "fp16",
        "fsdp",
        "fsdp_config",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "ignore_data_skip",
        "label_names",
        "learning_rate",
        "length_column_name",
        "load_best_model_at_end",
        "local_rank",
        "logging_nan_inf_filter",
        "logging_steps",
        "logging_strategy",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_length",
        "max_steps",
        "model_init_kwargs",
        "num_train_epochs",
        "output_dir",
        "packing",
        "packing_strategy",
        "pad_token",
        "padding_free",
        "parallelism_config",
        "per_device_train_batch_size",
        "project",
        "push_to_hub",
        "remove_unused_columns",
        "report_to",
        "resume_from_checkpoint",
        "run_name",
        "save_on_each_node",
        "save_only_model",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "seed",
        "shuffle_dataset",
        "trackio_static_space_id",
        "train_sampling_strategy",
        "truncation_mode",
        "trust_remote_code",
        "use_cache",
        "use_cpu",
        "use_liger_kernel",
        "warmup_steps",
        "weight_decay",
    }
)
"""SFTConfig arguments that `sft:` sets itself; `sft.trl` may not set them a second time."""


OWNED_BODY_KEYS = frozenset(
    {"model", "messages", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "n", "stream"}
)
"""Fields of a chat request that distill sets itself; `generate.extra_body` may not set them a second time."""


_SAFE_TEXT = re.compile(r"/{1,2}|(?!.*(?:__|\.\.))[^()\[\]{}/\\\\'\"`#@]{0,200}")


def unsafe_texts(value: Any) -> Iterator[str]:
    """Texts of a task's options that it could evaluate, or open as a file."""
    if isinstance(value, str) and not _SAFE_TEXT.fullmatch(value):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unsafe_texts(str(key))
            yield from unsafe_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from unsafe_texts(inner)


Task = Literal["math", "choice", "exact", "numeric", "regex", "judge", "gym"]
"""`math`: equal as mathematics; `choice`: the letter or text of an option; `exact`: the same text; `numeric`: the same
number, within 1e-6 of it; `regex`: the expected answer is a pattern; `judge`: a model decides; `gym`: the scorer of the
reasoning-gym task."""


class Strict(BaseModel):
    """Unknown keys are refused, values are fixed once read, and each field's docstring is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Columns(Strict):
    """Which column of the source holds what."""

    problem: str | None = None
    """Column with the question; left out: the first of problem, question, prompt, instruction."""
    answer: str | None = None
    """Column with the expected answer; left out: the first of answer, expected_answer, gtruth_answer, solution."""
    options: str | None = None
    """Column with a list of options, lettered in the prompt; left out, for `task: choice`: options, choices."""
    id: str | None = None
    """Column with an id of its own; left out: the id is a hash of the content."""


class ProblemSource(Strict):
    """Where problems come from and how their rows are read."""

    source: Source
    """`hf:org/dataset`, `file:path` (JSONL, JSON, Parquet; relative to the recipe), or `gym:task` (reasoning-gym)."""
    config: Config | None = None
    """Configuration (subset) of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: Revision | None = None
    """Git revision of a Hub dataset; left out: its main branch."""
    columns: Columns = Columns()
    """Which columns hold the question, the answer and the id."""
    answer_after: Annotated[str, Field(min_length=1)] | None = None
    """Marker in the answer column: what follows its last occurrence is the expected answer (`####` for GSM8K)."""
    answer_index: Literal[0, 1] | None = None
    """What the first option counts as where answers of `task: choice` are numbers; left out: all rows tell it."""
    template: str = "{problem}"
    """The student's prompt, with `{problem}` where the question goes and `{options}` where options go (else after)."""
    task: Task | None = None
    """How answers are graded (`distill.grading`); left out: `gym` for a gym source, `math` otherwise."""
    limit: PositiveInt | None = None
    """Most problems to use (drawn at random under the seed); for a gym source, problems to make: 500 where left out."""
    seed: int | None = None
    """Seed of the draw; left out: the recipe's seed."""
    options: dict[str, Any] = {}
    """Options of the reasoning-gym task, e.g. `{min_terms: 3, max_terms: 3}`."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if "{problem}" not in self.template:
            raise ValueError("template must hold {problem}, which is where the question goes")
        if self.options and not self.source.startswith("gym:"):
            raise ValueError("options are for gym: sources only")
        if (text := next(unsafe_texts(self.options), None)) is not None:
            raise ValueError(
                f"options may not hold the text {text[:40]!r}: reasoning-gym evaluates some texts as Python and reads "
                "files by others, so they are words, numbers and operators without brackets, quotes and paths"
            )
        if self.answer_index is not None and self.task != "choice":
            raise ValueError("answer_index is for task: choice only: it tells how the numbers of options count")
        if self.task == "gym" and not self.source.startswith("gym:"):
            raise ValueError("task: gym needs a gym: source, whose own scorer it uses. Use task: math")
        return self


class TraceColumns(Strict):
    """Which column of the source holds what; left out: found by the usual names."""

    problem: str | None = None
    """Column with the question, or with the prompt as chat messages."""
    answer: str | None = None
    """Column with the expected answer."""
    text: str | None = None
    """Column with the trace, or with a list of them."""
    messages: str | None = None
    """Column with the whole chat, question and trace; read where no text column is there."""
    reasoning: str | None = None
    """Column with the thought alone; read where neither text nor messages are there."""
    content: str | None = None
    """Column with what follows the thought."""
    finish_reason: str | None = None
    """Column with the finish reason, or with a list of them."""
    id: str | None = None
    """Column with an id of the problem."""
    model: str | None = None
    """Column with the teacher's name."""
    system: str | None = None
    """Column with the system prompt; it is put before chats that have none."""


class TraceSource(Strict):
    """Where traces come from and how their rows are read."""

    source: TableSource
    """`hf:org/dataset` or `file:path` (JSONL, JSON, Parquet; relative to the recipe)."""
    config: Config | None = None
    """Configuration (subset) of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: Revision | None = None
    """Git revision of a Hub dataset; left out: its main branch."""
    limit: PositiveInt | None = None
    """Most traces to use: the first ones."""
    problems: Annotated[str, Field(pattern=r"^file:.+")] | None = None
    """`file:path` of the problems that rows name by `problem_id`, as a run's problems.jsonl."""
    columns: TraceColumns = TraceColumns()
    """Which columns hold what."""
    answer_after: Annotated[str, Field(min_length=1)] | None = None
    """Marker in the answer column: what follows its last occurrence is the expected answer."""
    template: str = "{problem}"
    """The student's prompt, with `{problem}` where the question goes; chat messages are taken as they are."""
    task: Task | None = None
    """How answers are graded; left out: `math`. `gym`, beside `problems`: some of these are reasoning-gym's, and their
    tasks' own scorers may be run with the options that the file names."""
    teacher: str | None = None
    """Who wrote the traces, where no column tells; left out: the source's name."""
    think_marks: list[Annotated[str, Field(min_length=1)]] = []
    """Marks around the thought, e.g. `["<a>", "</a>"]`; two more: those around the answer. Usual ones are known."""
    system: Literal["keep", "drop"] = "keep"
    """`drop`: leave system messages and the system column out of the student's prompt."""

    @model_validator(mode="after")
    def _fits_its_rows(self) -> Self:
        if "{problem}" not in self.template:
            raise ValueError("template must hold {problem}, which is where the question goes")
        if self.task == "gym" and self.problems is None:
            raise ValueError("task: gym needs problems:, which say how their entries are made. Use task: math")
        if len(self.think_marks) not in (0, 2, 4) or len(set(self.think_marks)) != len(self.think_marks):
            raise ValueError(
                "think_marks takes two different marks, before and after the thought, or four: two more for the answer"
            )
        return self


class Sampling(Strict):
    """How tokens are drawn. Defaults: DeepSeek-R1's evaluation protocol."""

    temperature: Annotated[float, Field(ge=0.0, le=5.0)] = 0.6
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Nucleus: the smallest set of tokens with this much probability. On CPU, 1.0 avoids sorting the vocabulary."""
    top_k: NonNegativeInt = 0
    """Sample from this many most probable tokens; 0: all."""
    max_tokens: PositiveInt = ROW_TOKENS
    """Longest completion, in tokens of the model that is sampled. Left out under `generate:`, it follows
    `sft.max_length` and the teacher's context where these are shorter."""


class EvalSampling(Sampling):
    """How tokens are drawn when measuring."""

    max_tokens: PositiveInt = ANSWER_TOKENS
    """Longest answer, in tokens of the model that is measured. Left out, it follows the student's context where that
    is shorter."""


class SamplingCompute(Strict):
    """Where and how an engine runs. It changes speed, never what a result means, and is not part of a fingerprint."""

    engine: Literal["auto", "vllm", "server", "transformers"] = "auto"
    """`auto`: the server where base_urls is set; else vLLM where it is installed, else transformers."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format that is computed in; auto: the model's own on a GPU, on CPU what it multiplies faster: bfloat16 or
    float32."""
    tensor_parallel: PositiveInt | None = None
    """GPUs that share each layer of one copy of the model; left out: as few as hold its weights and leave room for a
    KV cache (vllm)."""
    pipeline_parallel: PositiveInt = 1
    """Groups of GPUs that share the layers of one copy among them (vllm)."""
    replicas: PositiveInt = 1
    """Copies of the model, each a process on GPUs (or CPU cores) of its own; all share one queue."""
    max_num_seqs: PositiveInt | None = None
    """Most samples in flight in one copy; left out: the engine's own pick."""
    max_model_len: PositiveInt | None = None
    """Prompt and completion together, in tokens; left out: what the longest prompt needs, within the context."""
    kv_cache_gib: PositiveFloat | None = None
    """KV cache of one copy on CPU, in GiB; left out: picked from free memory."""
    gpu_memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of each GPU's memory for the engine (vllm)."""
    enforce_eager: bool | None = None
    """Skip compilation and CUDA graphs; left out: true on CPU, false on GPU (vllm)."""
    cpu_threads: PositiveInt | None = None
    """Threads that compute, of one copy; left out: as many as cores, divided among the replicas (no GPU)."""
    base_urls: list[Url] = []
    """OpenAI-compatible endpoints, e.g. `http://host:8000/v1`; requests go to whichever has room (server)."""
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """Environment variable that holds the key; a server without keys needs none (server)."""
    max_in_flight: PositiveInt | None = None
    """Requests in flight over all base_urls together; left out: 256 for each (server)."""
    request_timeout_s: PositiveFloat = 3_600.0
    """A request that takes longer is cancelled and retried, in seconds (server)."""
    max_attempts: PositiveInt = 6
    """Attempts at one request while others succeed; then its sample is recorded as an error (server)."""
    give_up_after_s: PositiveFloat = 1_800.0
    """Stop if no server has answered anything for this time, in seconds (server)."""
    max_error_share: Share = 0.5
    """Stop with an error where more than this share of the samples ended in errors; the same command retries them."""
    drain_s: Annotated[float, Field(ge=0.0)] = 15.0
    """Time for samples in flight to finish after Ctrl-C or SIGTERM, in seconds."""

    @model_validator(mode="after")
    def _urls_belong_to_the_server(self) -> Self:
        if self.engine == "server" and not self.base_urls:
            raise ValueError("engine: server needs base_urls, e.g. base_urls: [http://localhost:8000/v1]")
        if self.base_urls and self.engine not in ("server", "auto"):
            raise ValueError(f"base_urls is for engine: server; engine is {self.engine}. Remove one of the two")
        if self.base_urls and self.replicas > 1:
            raise ValueError("replicas are copies on this machine; for several servers, list them in base_urls")
        return self


class LoopStop(Strict):
    """When a sample is stopped as a loop: its last tokens repeat one phrase."""

    min_repeats: Annotated[int, Field(ge=3)] = 8
    """Least number of repeats of the phrase."""
    min_tokens: Annotated[int, Field(ge=16)] = 256
    """Least length of all repeats together, in tokens."""
    max_period: PositiveInt = 512
    """Longest phrase that is looked for, in tokens."""


class Price(Strict):
    """Prices of the teacher's tokens."""

    input_per_million: Annotated[float, Field(ge=0.0)]
    """Money for a million prompt tokens."""
    output_per_million: Annotated[float, Field(ge=0.0)]
    """Money for a million completion tokens, those of the thinking included."""
    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    """Currency, shown beside the amounts."""


class Example(Strict):
    """A worked example shown to the teacher, never to the student."""

    problem: str
    """The question, as the prompt will put it."""
    reasoning: str
    """The chain of thought; it is shown inside `<think>` … `</think>`."""
    answer: str
    """What follows the thinking, the final answer in `\\boxed{}` included."""


class GenerateConfig(Strict):
    """Stage 1: the teacher writes several answers to each problem."""

    teacher: str
    """Hub id or local folder of the teacher, or a student's alias."""
    revision: Revision | None = None
    """Git revision of the teacher on the Hub; left out: its main branch."""
    samples_per_problem: PositiveInt = 4
    """Answers sampled for each problem."""
    system: str | None = None
    """System prompt for the teacher alone."""
    examples: list[Example] = []
    """Worked examples for the teacher alone."""
    sampling: Sampling = Sampling()
    """How the teacher's tokens are drawn."""
    extra_body: dict[str, Any] = {}
    """Extra fields for each request to a server, e.g. `{chat_template_kwargs: {enable_thinking: true}}`."""
    loops: LoopStop | None = LoopStop()
    """Stop samples that only repeat themselves (finish_reason `loop`); null: let them run to max_tokens."""
    stop_after_correct: PositiveInt | None = None
    """Stop sampling a problem once this many samples are graded correct; left out: draw all."""
    price: Price | None = None
    """Prices to compute the cost with; left out: not computed."""
    compute: SamplingCompute = SamplingCompute()
    """Where the teacher runs."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.sampling.temperature == 0 and self.samples_per_problem > 1:
            raise ValueError(
                f"sampling.temperature 0 is greedy: all {self.samples_per_problem} samples of a problem would be the "
                "same. Set samples_per_problem to 1 or raise the temperature"
            )
        if self.stop_after_correct is not None and self.stop_after_correct >= self.samples_per_problem:
            raise ValueError(
                f"stop_after_correct ({self.stop_after_correct}) can never apply: samples_per_problem is "
                f"{self.samples_per_problem}. Lower stop_after_correct or leave it out"
            )
        if self.extra_body and not self.compute.base_urls:
            raise ValueError("extra_body is sent to a server only; set compute.base_urls or remove extra_body")
        if taken := sorted(OWNED_BODY_KEYS & self.extra_body.keys()):
            raise ValueError(f"extra_body: {', '.join(taken)} is set by distill itself; use the fields of generate:")
        return self


class Readability(Strict):
    """What makes a trace unreadable, as DeepSeek-R1 dropped it (arXiv:2501.12948, section 2.3.3)."""

    language: Language | Literal["prompt"] | None = "en"
    """ISO 639-1 code of the language that traces must be in; `prompt`: the prompt's own; null: any."""
    min_language_share: Share = 0.95
    """Least share of the words that must be in that language (LaTeX, code, names and numbers set aside)."""
    max_foreign_words: NonNegativeInt | None = 0
    """Most words in another language; null: only their share counts."""
    max_compression_ratio: PositiveFloat | None = 6.0
    """Highest ratio of raw to zlib-compressed size of any 4,096 characters; real mathematics has up to 4.5."""
    max_repeated_share: Share = 0.5
    """Such a text counts as repetition only if more than this share of it is a literal copy of earlier text."""
    max_loop_repeats: PositiveInt | None = 10
    """Most repeats of one phrase in a row: at the end of the thought or of the answer if it has at least 4
    words, anywhere if all repeats together have 300 characters (1,000 where it has no letters); null: any."""
    max_loop_chars: PositiveInt | None = 600
    """Most characters in a row that may repeat the text right before them, three times or more; null: any."""
    max_paragraph_chars: PositiveInt | None = 6_000
    """Longest paragraph, in characters; null: any."""
    code_blocks: bool = False
    """Keep traces with fenced code blocks."""
    several_answers: bool = False
    """Keep traces whose answer holds several boxed results that disagree."""
    refusals: bool = False
    """Keep traces whose answer refuses to answer."""
    max_prompt_leak: Share | None = 0.5
    """Largest share of the system prompt's or a worked example's 8-word pieces that a trace may repeat; null: any."""


class Duplicates(Strict):
    """Near-duplicates; of several, the first by identity is kept."""

    problems: Share | None = 0.9
    """Problems with equal numbers whose word pieces overlap by this share (Jaccard) are duplicates; null: none are."""
    traces: Share | None = 0.9
    """The same for the traces of one problem, whatever their numbers; null: only equal texts are duplicates."""


class Majority(Strict):
    """The answer that most traces of a problem give replaces an expected answer that is missing or doubted."""

    min_votes: Annotated[int, Field(ge=2)] = 4
    """Least number of traces of the problem with an answer."""
    min_share: Annotated[float, Field(gt=0.5, le=1.0)] = 0.6
    """Least share of them that gives the same answer."""
    doubted: bool = False
    """Also override an expected answer that no trace of the problem gives; else only missing ones are replaced."""


class Judge(Strict):
    """A model that grades what no rule can, and may veto; it never overrides a rule."""

    model: str
    """The judge's name at its server."""
    rubric: Annotated[str, Field(min_length=1)] = (
        "The answer is correct if and only if its final result means the same as the reference answer."
    )
    """What makes an answer right, in words."""
    role: Literal["fill", "veto", "both"] = "fill"
    """`fill`: grade what no rule can; `veto`: drop what a rule calls right and the judge wrong; `both`."""
    max_chars: PositiveInt = 8_000
    """Most characters of an answer's end that the judge is shown."""
    sampling: Sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=2_048)
    """How the judge's tokens are drawn."""
    compute: SamplingCompute
    """Where the judge is served (`base_urls`)."""

    @model_validator(mode="after")
    def _is_served(self) -> Self:
        if not self.compute.base_urls:
            raise ValueError("a judge is a served model: set compute.base_urls, e.g. [http://localhost:8000/v1]")
        return self


class Select(Strict):
    """Which good traces are kept; the choice does not depend on the order of the rows."""

    min_pass_rate: Share = 0.0
    """Drop problems of which a smaller share of the graded traces is right."""
    max_pass_rate: Share = 1.0
    """Drop problems of which a larger share of the graded traces is right: too easy to learn from."""
    per_problem: PositiveInt | None = None
    """Most traces kept of a problem; left out: all."""
    policy: Literal["shortest", "longest", "random", "diverse"] = "shortest"
    """Which ones: with the fewest tokens, with the most, a seeded draw, or those that differ most from each other."""
    per_source: PositiveInt | None = None
    """Most traces kept of a source (a seeded draw); left out: all."""
    token_budget: PositiveInt | None = None
    """Most completion tokens in total (a seeded draw of traces until it is reached); left out: no limit."""

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> Self:
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError(
                f"min_pass_rate ({self.min_pass_rate:g}) exceeds max_pass_rate ({self.max_pass_rate:g}): no problem "
                "can be kept"
            )
        return self


class FilterCompute(Strict):
    """Where grading runs; not part of a fingerprint."""

    workers: PositiveInt | None = None
    """Grading processes; left out: one per core."""


class FilterConfig(Strict):
    """Stage 2: only correct and readable traces are kept; every drop has its reasons."""

    require_think: bool = True
    """Drop traces without a whole `<think>` … `</think>` block."""
    min_tokens: PositiveInt | None = None
    """Shortest trace kept, in student tokens (reasoning and answer)."""
    max_tokens: PositiveInt | None = None
    """Longest trace kept, in student tokens (reasoning and answer). Left out with `traces:`: `sft.max_length` less
    1,024 tokens for the prompt (a quarter of it where that is less). Left out with `generate:`: any length."""
    readability: Readability = Readability()
    """Language, repetition, form."""
    gym_min_score: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """A gym answer is right from this score of the task's own scorer on; it gives parts of a point for parts."""
    judge: Judge | None = None
    """A model for what no rule can grade; left out: such traces count as ungraded."""
    majority: Majority | None = None
    """A vote where the expected answer is missing or doubted; left out: such traces count as ungraded or wrong."""
    unanswered: Literal["drop", "keep"] = "drop"
    """Traces of problems without an expected answer that neither judge nor majority grades: `drop` them, or `keep` them
    ungraded, for sources whose authors have verified them."""
    decontaminate: list[EvaluationSet] = []
    """Evaluation sets whose items must not be trained on: math-500, aime24, aime25, gpqa-diamond, gsm8k,
    `hf:org/name[/config]` or `file:path`."""
    duplicates: Duplicates | None = Duplicates()
    """Near-duplicates of problems and traces; null: keep them."""
    select: Select = Select()
    """Which good traces are kept, and how many."""
    grade_timeout_s: PositiveFloat = 10.0
    """A grading that takes longer is stopped and counts as ungraded, in seconds."""
    grade_memory_gib: PositiveFloat = 4.0
    """A grading that takes more memory is stopped and counts as ungraded, in GiB."""
    compute: FilterCompute = FilterCompute()
    """Where grading runs."""

    @model_validator(mode="after")
    def _some_length_fits(self) -> Self:
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens ({self.min_tokens}) exceeds max_tokens ({self.max_tokens}): nothing can be kept"
            )
        return self


class Lora(Strict):
    """LoRA adapter (peft)."""

    r: PositiveInt = 32
    """Rank."""
    alpha: PositiveInt = 64
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: Share = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    """Which layers get an adapter."""


class TrainCompute(Strict):
    """Layout of training; not part of a fingerprint."""

    num_processes: PositiveInt | None = None
    """Processes that share each step, one a GPU; left out: all GPUs of this machine, or one process without any."""
    sharding: Literal["auto", "none", "fsdp", "zero3"] = "auto"
    """How several GPUs hold the model: replicated (none), or sharded by FSDP2 (fsdp) or DeepSpeed ZeRO-3 (zero3);
    auto: fsdp if there are several GPUs and one cannot hold it, else none."""
    cpu_offload: bool = False
    """Keep the shards of weights and optimiser in the machine's memory (fsdp, zero3): slower, needs fewer GPUs."""
    sequence_parallel: PositiveInt = 1
    """GPUs that split each row, for rows too long for one (context parallel with fsdp, Ulysses with zero3)."""
    per_device_batch_size: PositiveInt | None = None
    """Rows per pass on a device, on average; left out: up to 8, so that batch_size is a multiple. The rest of a step is
    accumulated."""
    group_by_length: bool = True
    """Put rows of similar length into the same pass of a step, which reduces padding."""
    packing: bool | None = None
    """Pack the rows of a pass instead of padding them; left out: if the attention kernel keeps them apart
    (FlashAttention on a GPU; on CPU each row by itself)."""
    attention: Literal["auto", "flash_attention_2", "flash_attention_3", "sdpa", "eager"] = "auto"
    """Attention kernel; auto: FlashAttention where it is installed and the GPU has it, row by row on CPU, else sdpa."""
    kernels: bool | None = None
    """Faster kernels with the same result: Liger's on a GPU, distill's own on CPU; left out: if they are installed."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of the forward and backward pass; auto: bfloat16 on a GPU that has it, else float32."""
    gradient_checkpointing: bool | None = None
    """Recompute activations to save memory; left out: true on GPU, false on CPU."""
    save_every_steps: PositiveInt | None = None
    """Steps between checkpoints; left out: a tenth of the run, at least 10."""
    tracking: list[Literal["trackio", "wandb", "tensorboard"]] = ["trackio"]
    """Where the curves are sent beside metrics.jsonl; an empty list: nowhere."""

    @model_validator(mode="after")
    def _layout_is_possible(self) -> Self:
        if self.sharding == "none" and (self.cpu_offload or self.sequence_parallel > 1):
            raise ValueError("cpu_offload and sequence_parallel need sharding: fsdp or zero3")
        if self.packing and self.sequence_parallel > 1:
            raise ValueError("packing and sequence_parallel exclude each other: rows laid end to end cannot be shared")
        return self


class SftConfig(Strict):
    """Stage 3: the student learns from the kept traces; the loss falls on the completion alone."""

    method: Literal["full", "lora", "qlora"] = "full"
    """All weights, or a LoRA adapter that is merged at the end; qlora: over weights quantised to 4 bits (GPU)."""
    max_length: PositiveInt = ROW_TOKENS
    """Longest row, prompt and completion, in student tokens. Longer rows are refused, never cut. Left out, it follows
    the student's context where that is shorter."""
    epochs: PositiveFloat = 3.0
    """Passes over the kept traces."""
    learning_rate: PositiveFloat | None = None
    """Peak rate; left out: the student's published one (full) or 2e-4 (lora, qlora)."""
    min_learning_rate_share: Share = 0.1
    """The cosine schedule ends at this share of the peak."""
    warmup_share: Share = 0.1
    """Share of the steps over which the rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW's weight decay."""
    batch_size: PositiveInt = 64
    """Rows per step, over all devices and accumulation."""
    rope_theta: PositiveFloat | None = None
    """Base of the rotary position embedding, to train on rows longer than the model's context; left out: the student
    table's where max_length asks for it, else the model's own."""
    chat_template: Annotated[str, Field(pattern=r"^(chatml|llama3|file:.+)$")] | None = None
    """`chatml`, `llama3` or `file:path` (Jinja; relative to the recipe) instead of the model's own chat template."""
    lora: Lora | None = None
    """The adapter; only with `method: lora` or `qlora`."""
    trl: dict[str, Any] = {}
    """Extra arguments for TRL's SFTConfig; those that this section sets itself are refused."""
    compute: TrainCompute = TrainCompute()
    """Layout of training."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lora is not None and self.method == "full":
            raise ValueError("lora: is set but method is full. Set method: lora or remove lora:")
        if taken := sorted(OWNED_TRL_KEYS & self.trl.keys()):
            raise ValueError(f"trl: {', '.join(taken)} is set by distill itself; use the fields of sft: instead")
        return self


class EvalConfig(Strict):
    """Stage 4: base and student answer the same problems that no training row came from."""

    held_out: NonNegativeInt = 0
    """Problems taken from `problems:` for evaluation, never used in training."""
    benchmarks: list[ProblemSource] = []
    """Further problem sets to measure on; their problems are kept out of training too."""
    samples_per_problem: PositiveInt = 4
    """Answers sampled per problem (k); pass@1 is their mean."""
    sampling: EvalSampling = EvalSampling()
    """How tokens are drawn, for base and student alike."""
    grade_timeout_s: PositiveFloat = 10.0
    """A grading that takes longer is stopped and counts as ungraded, in seconds."""
    compute: SamplingCompute = SamplingCompute()
    """Where base and student run."""

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if not self.held_out and not self.benchmarks:
            raise ValueError("nothing to measure on: set held_out or benchmarks, or remove eval:")
        if self.sampling.temperature == 0 and self.samples_per_problem > 1:
            raise ValueError("sampling.temperature 0 gives the same answer every time: set samples_per_problem to 1")
        return self


class PushConfig(Strict):
    """Stage 5: student, and if asked the kept traces, go to the Hugging Face Hub."""

    repo: RepoId
    """Model repository on the Hub (`org/name`); created if it does not exist."""
    private: bool = True
    """Create repositories as private. An existing one keeps its visibility; with `true`, a public one is refused."""
    dataset: RepoId | None = None
    """Dataset repository for the kept traces; left out: they are not published."""
    dropped: bool = False
    """Publish dropped traces too, each with its reasons, as a configuration of their own; only with `dataset:`."""
    license: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")] | None = None
    """Licence of the student, by its Hub identifier; left out: the base model's."""
    adapter: bool = True
    """With LoRA, publish the adapter beside the merged weights (in `adapter/`)."""
    checkpoints: bool = False
    """Publish training's checkpoints too, each as a branch `step-N`; training then keeps them all."""
    accept_licence: bool = False
    """Push although a licence forbids training on the teacher's output: you have an agreement with its owner."""
    replace_readme: bool = False
    """Replace a README.md on the Hub that distill did not write, or that was edited since."""

    @model_validator(mode="after")
    def _repositories_differ(self) -> Self:
        if self.dropped and self.dataset is None:
            raise ValueError("dropped: true needs dataset: org/name, which is where dropped traces would go")
        return self


class Recipe(Strict):
    """Everything that determines what a run produces."""

    schema_version: Literal[1] = 1
    """Version of this schema."""
    name: Name
    """Name of the run: its results go to `runs/<name>/`."""
    description: str = ""
    """What the recipe is for, in a line or two."""
    student: str
    """Alias (`distill students`), Hub id (`org/model`) or local folder (`./model`) of the model to train."""
    student_revision: Revision | None = None
    """Git revision of the student on the Hub; left out: its main branch."""
    seed: NonNegativeInt = 0
    """Seed of every draw: problems, samples, selection, training order."""
    problems: list[ProblemSource] = []
    """Where the problems come from that the teacher answers."""
    generate: GenerateConfig | None = None
    """Stage 1: sampling the teacher."""
    traces: list[TraceSource] = []
    """Stage 1 without a teacher: traces made elsewhere, with the problems that they answer."""
    filter: FilterConfig = FilterConfig()
    """Stage 2: grading and filtering."""
    sft: SftConfig = SftConfig()
    """Stage 3: training the student."""
    eval: EvalConfig | None = None
    """Stage 4: measuring base and student; left out: not measured."""
    push: PushConfig | None = None
    """Stage 5: publishing on the Hub; left out: nothing leaves this machine."""

    @property
    def traces_stage(self) -> str:
        """The stage that the traces come from."""
        return "generate" if self.generate is not None else "import"

    @model_validator(mode="before")
    @classmethod
    def _fill_in_lengths(cls, tree: Any) -> Any:
        return with_lengths(tree) if isinstance(tree, Mapping) else tree

    @model_validator(mode="after")
    def _traces_come_from_one_place(self) -> Self:
        if (self.generate is None) == (not self.traces):
            raise ValueError("give either generate: (a teacher answers problems) or traces: (made elsewhere)")
        if self.generate is not None and not self.problems:
            raise ValueError("problems: is missing: the teacher needs problems to answer")
        if self.traces and self.problems:
            raise ValueError("problems: is for generate:; traces bring theirs along. Remove one of the two")
        if self.traces and self.eval and self.eval.held_out:
            raise ValueError(
                "eval.held_out is taken from problems:, and traces bring theirs along; use eval.benchmarks"
            )
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        problems = list(cross_stage_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def cross_stage_problems(recipe: Recipe) -> list[str]:
    """What in one stage cannot work with another, each with the keys and the way out."""
    found = []
    kept, longest = recipe.filter.max_tokens, recipe.sft.max_length
    if kept is not None and kept > longest:
        found.append(
            f"filter.max_tokens ({kept}) exceeds sft.max_length ({longest}): kept traces would be cut. "
            "Raise sft.max_length or lower filter.max_tokens."
        )
    if recipe.generate is not None:
        found += _teacher_against_student(recipe.generate.sampling.max_tokens, kept, longest)
    if recipe.filter.judge is None and "judge" in {
        *(s.task for s in recipe.problems),
        *(s.task for s in recipe.traces),
    }:
        found.append(
            "task: judge needs a judge that fills in: set filter.judge, e.g. "
            "judge: {model: …, compute: {base_urls: [http://localhost:8000/v1]}}."
        )
    if recipe.eval is not None and "judge" in {
        *(s.task for s in recipe.eval.benchmarks),
        *(s.task for s in recipe.problems if recipe.eval.held_out),
    }:
        found.append(
            "task: judge cannot be measured: eval grades by rules alone. Use other problems in eval.benchmarks, or "
            "leave eval.held_out out."
        )
    if recipe.traces and kept is None:
        found.append(
            f"filter.max_tokens is not set: traces too long for sft.max_length ({longest}) could be kept. Set "
            f"filter.max_tokens to less than {longest}; the prompt needs room too."
        )
    found += _against_the_context(recipe)
    return found


def _against_the_context(recipe: Recipe) -> list[str]:
    """What is longer than the student reaches, with the rotary embedding's patch where it has one."""
    student, longest = find_student(recipe.student), recipe.sft.max_length
    if student.context is None or student.longest_context is None:
        return []
    found = []
    has_theta = recipe.sft.rope_theta is not None
    if longest > student.longest_context and not has_theta:
        found.append(
            f"sft.max_length ({longest}) exceeds the context of {student.alias} ({student.longest_context} tokens). "
            f"Lower sft.max_length to {student.longest_context} or less, or set sft.rope_theta to train it on longer "
            "rows."
        )
    reach = reach_of(student, longest, has_theta) or student.longest_context
    if recipe.eval is not None and recipe.eval.sampling.max_tokens >= reach:
        way = f" or raise sft.max_length above {student.context}" if reach < student.longest_context else ""
        found.append(
            f"eval.sampling.max_tokens ({recipe.eval.sampling.max_tokens}) leaves no room for a prompt in the context "
            f"of {student.alias} ({reach} tokens). Lower eval.sampling.max_tokens{way}."
        )
    return found


def _teacher_against_student(teacher_max: int, kept: int | None, longest: int) -> list[str]:
    if kept is None and teacher_max > longest:
        why = (
            f"generate.sampling.max_tokens ({teacher_max}) exceeds sft.max_length ({longest}) and filter.max_tokens "
            "is not set: traces too long to train on could be kept. Set filter.max_tokens or raise sft.max_length."
        )
        return [why]
    return []
