"""Scores in the Hub's format: `.eval_results/*.yaml`, from which the Hub fills benchmark leaderboards.

There is one file for each benchmark that is a Hub dataset and was measured whole:

    - dataset: {id: openai/gsm8k, task_id: gsm8k}
      value: 43.5
      notes: pass@1, mean of 4 samples; …

Format: https://huggingface.co/docs/hub/eval-results.
"""

from dataclasses import dataclass
from typing import Any

from distill.publish.facts import RunFacts, is_hub_id
from distill.publish.files import PublishedFile, text_file
from distill.publish.markdown import one_line
from distill.recipe.problems import ProblemSource
from distill.results.eval import Benchmark, Protocol
from distill.sources.problems import named_benchmarks
from distill.storage.run_files import MEASURED

FOLDER = ".eval_results"
TASK_IDS = {
    ("openai/gsm8k", "main"): "gsm8k",
    ("Idavidrein/gpqa", "gpqa_diamond"): "diamond",
    ("TIGER-Lab/MMLU-Pro", ""): "mmlu_pro",
    ("TIGER-Lab/MMLU-Pro", "default"): "mmlu_pro",
}
"""Task ids of benchmarks whose eval.yaml does not name the task like the configuration, by data set and configuration.

Seen in `.eval_results/` of Zyphra/ZAYA1-8B and MiniMaxAI/MiniMax-M2.5."""


@dataclass(frozen=True, slots=True)
class LeaderboardEntry:
    """A benchmark's location on the Hub."""

    dataset: str
    config: str | None
    split: str
    revision: str | None
    is_whole: bool
    """Whether all of it was measured; a score on a part is not comparable with scores on the whole."""


def scores_by_benchmark(facts: RunFacts) -> list[Benchmark]:
    """Return base, student and difference on each benchmark; empty if nothing was measured."""
    return facts.scores.benchmarks if facts.scores else []


def benchmark_places(facts: RunFacts) -> dict[str, LeaderboardEntry]:
    """Return the benchmarks that are Hub datasets, by the name that they have in the scores."""
    found: dict[str, LeaderboardEntry] = {}
    for name, source in named_benchmarks(facts.recipe).items():
        kind, _, dataset = source.source.partition(":") if source else ("", "", "")
        if source is not None and kind == "hf" and is_hub_id(dataset):
            found[name] = LeaderboardEntry(dataset, source.config, source.split, source.revision, _is_whole(source))
    return found


def protocol_of(facts: RunFacts, row: Benchmark) -> Protocol:
    """Return the conditions of a benchmark's scores; those of the whole evaluation if it has none of its own."""
    assert facts.scores is not None
    common = facts.scores.protocol
    return common if row.protocol is None else row.protocol.model_copy(update={"engine": common.engine})


def eval_result_files(facts: RunFacts, repo: str) -> list[PublishedFile]:
    """Return the result files, each named after its benchmark; none for incomplete scores and those of a judge."""
    import yaml

    places = benchmark_places(facts)
    files = []
    for row in scores_by_benchmark(facts):
        place = places.get(row.name)
        is_comparable = protocol_of(facts, row).judge is None and row.student.is_complete
        if place is not None and place.is_whole and is_comparable:
            text = yaml.safe_dump([_entry(facts, repo, row, place)], sort_keys=False, allow_unicode=True, width=10_000)
            files.append(text_file(f"{FOLDER}/{_file_name(place)}.yaml", text))
    return files


def _entry(facts: RunFacts, repo: str, row: Benchmark, place: LeaderboardEntry) -> dict[str, Any]:
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entry = EvalResultEntry(
        dataset_id=place.dataset,
        task_id=TASK_IDS.get((place.dataset, place.config or ""), place.config or "default"),
        value=_percent(row),
        dataset_revision=place.revision,
        date=facts.manifests[MEASURED]["finished_at"][:10],
        source_url=f"https://huggingface.co/{repo}/blob/main/distill/manifests/eval.json",
        source_name="distill",
        notes=one_line(_notes(facts, row)),
    )
    found: dict[str, Any] = eval_result_entries_to_yaml([entry])[0]
    return found


def _percent(row: Benchmark) -> float:
    assert row.student.pass_at_1 is not None  # a complete score is known
    return round(100 * row.student.pass_at_1, 2)


def _notes(facts: RunFacts, row: Benchmark) -> str:
    protocol, student = protocol_of(facts, row), row.student
    low, high = student.interval_95
    return (
        f"{protocol.metric or 'pass@1'} in percent, mean of {student.samples_per_problem} samples of each of "
        f"{student.num_problems} problems; 95% interval {100 * low:.1f} to {100 * high:.1f}; temperature "
        f"{protocol.temperature}, top-p {protocol.top_p}, at most {protocol.max_tokens} tokens, {protocol.engine}; "
        f"answer: {protocol.extraction}; {100 * student.truncated_share:.1f}% cut off; "
        f"protocol {protocol.hash or 'without hash'}"
    )


def _is_whole(source: ProblemSource) -> bool:
    return source.limit is None and source.window is None


def _file_name(place: LeaderboardEntry) -> str:
    return "-".join(part for part in (place.dataset.replace("/", "--"), place.config, place.split) if part)
