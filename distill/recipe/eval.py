"""The `eval:` section: what is evaluated, and how."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from distill.core.plurals import counted
from distill.recipe.base import Strict
from distill.recipe.filter import Judge
from distill.recipe.sampling import EvalSampling, SamplingCompute
from distill.recipe.suites import BenchmarkSource, benchmark_tree, merged

PROTOCOLS: dict[str, dict[str, Any]] = {
    "r1-paper": {"sampling": {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_tokens": 32_768}},
}
"""Named protocols: what they set for every benchmark. The number of samples is each suite's own.

`r1-paper`: DeepSeek-R1 (arXiv:2501.12948), section 3: no system prompt, directives in the user's prompt.
"""


class EvalConfig(Strict):
    """Stage 4: models answer the same problems, none of which were trained on."""

    held_out: NonNegativeInt = 0
    """Number of problems set aside from `problems:` for evaluation, never used in training."""
    benchmarks: list[BenchmarkSource] = []
    """Suites by name (`distill suites`), or further problem sets; their problems are kept out of training too."""
    protocol: Literal["r1-paper"] | None = None
    """`r1-paper`: sampling as in DeepSeek-R1's evaluation, for all benchmarks, and for held-out problems where
    `eval.sampling` does not say otherwise. Default: `eval.sampling`."""
    models: list[Annotated[str, Field(min_length=1)]] = []
    """Further models to evaluate: Hub ids, aliases or folders. In a recipe that trains nothing, all of them."""
    judge: Judge | None = None
    """The model that decides suites which no rule can grade. Default: such suites cannot be measured."""
    samples_per_problem: PositiveInt = 4
    """Answers sampled per problem (k) where a benchmark does not say; pass@1 is their mean."""
    sampling: EvalSampling = EvalSampling()
    """Sampling parameters, the same for all models."""
    grade_timeout_s: PositiveFloat = 10.0
    """Time limit for grading one answer, in seconds; beyond it, the answer counts as ungraded."""
    compute: SamplingCompute = SamplingCompute()
    """Where the models run."""

    def k_of(self, benchmark: BenchmarkSource | None) -> int:
        """Return the number of samples a problem; `None` stands for the held-out problems."""
        own = benchmark and benchmark.samples_per_problem
        return own or self.samples_per_problem

    def sampling_of(self, benchmark: BenchmarkSource | None) -> EvalSampling:
        """Return the sampling parameters of a benchmark; `None` stands for the held-out problems."""
        own = benchmark.sampling.model_dump(exclude_none=True) if benchmark else {}
        return self.sampling.model_copy(update=own)

    def named_protocol(self, benchmark: BenchmarkSource | None) -> str | None:
        """Return the named protocol by which a benchmark is measured; `None` if it is not kept in every key."""
        if self.protocol is None:
            return None
        named, used = PROTOCOLS[self.protocol]["sampling"], self.sampling_of(benchmark).model_dump()
        return self.protocol if all(used[key] == value for key, value in named.items()) else None

    @model_validator(mode="before")
    @classmethod
    def _read_suites(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        name = tree.get("protocol")
        protocol = PROTOCOLS.get(name, {}) if isinstance(name, str) else {}
        found = dict(tree)
        if protocol and found.get("held_out") and isinstance(found.get("sampling", {}), Mapping):
            found["sampling"] = merged(protocol["sampling"], found.get("sampling", {}))
        if isinstance(found.get("benchmarks"), list):
            found["benchmarks"] = [benchmark_tree(entry, protocol) for entry in found["benchmarks"]]
        return found

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if not self.held_out and not self.benchmarks:
            raise ValueError("nothing to measure on: set held_out or benchmarks, or remove eval:")
        for benchmark in (None, *self.benchmarks):
            if benchmark is None and not self.held_out:
                continue
            k = self.k_of(benchmark)
            if self.sampling_of(benchmark).temperature == 0 and k > 1:
                named = f"{benchmark.suite or benchmark.source}: " if benchmark else ""
                raise ValueError(
                    f"{named}sampling.temperature 0 gives the same answer every time, and {k} samples of each problem "
                    "are asked for: set samples_per_problem to 1"
                )
        for benchmark in self.benchmarks:
            k = self.k_of(benchmark)
            if benchmark.adaptive is not None and benchmark.adaptive.min_samples > k:
                raise ValueError(
                    f"{benchmark.suite or benchmark.source}: adaptive.min_samples {benchmark.adaptive.min_samples} is "
                    f"more than the {counted(k, 'sample')} of each problem: lower it, or raise samples_per_problem"
                )
            if most := [figure for figure in benchmark.show if int(figure.partition("@")[2]) > k]:
                raise ValueError(
                    f"{benchmark.suite or benchmark.source}: {', '.join(most)} cannot be told from "
                    f"{counted(k, 'sample')} of each problem: raise samples_per_problem, or take it out of show"
                )
        if judged := [one.suite or one.source for one in self.benchmarks if one.is_judged and self.judge is None]:
            raise ValueError(
                f"{', '.join(judged)}: a judge decides the score: set judge, e.g. "
                "judge: {model: …, compute: {base_urls: [http://localhost:8000/v1]}}"
            )
        return self
