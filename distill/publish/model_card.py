"""The model repository's README.md with its front matter.

It holds no text that a model wrote, and every value is escaped (see `distill.publish.markdown`).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from distill import __version__
from distill.core.plurals import counted
from distill.core.records import REASONS
from distill.core.redaction import local_name, redact, scrub
from distill.publish.eval_results import benchmark_places, protocol_of, scores_by_benchmark
from distill.publish.facts import NUM_TEACHERS_SHOWN, RunFacts, is_hub_id, shown_sources
from distill.publish.licences import Licence
from distill.publish.markdown import Safe, front_matter, in_percent, interval, one_line, render
from distill.recipe.base import Language
from distill.recipe.rl_faults import judge_of
from distill.recipe.sampling import EvalSampling
from distill.recipe.sft import Lora, SftConfig
from distill.results.eval import METRICS, PASS_AT_1, Benchmark, Difference, EvalResult, Figure, Unit, unit_of
from distill.results.filter import FilterMetrics
from distill.results.kinds import kind_of
from distill.results.sft import SftMetrics
from distill.sources.problem_rows import source_label
from distill.storage.files import read_json, read_object
from distill.storage.layout import GATE

TEMPLATE = "model_card.md.jinja"
MARKER = "<!-- Written by distill. It is replaced by the next push, unless it is edited here. -->"
QUESTION = "What is 17 + 25?"
MAX_NEW_TOKENS = 4_096


def model_card(
    facts: RunFacts,
    repo: str,
    dataset: str | None,
    licence: Licence,
    base_licence: Licence,
    teachers: Sequence[tuple[str, Licence]],
    warnings: Sequence[str],
    extras: Mapping[str, Any],
) -> str:
    """Return the card as Markdown with its front matter.

    Args:
        facts: of the run.
        repo: model repository.
        dataset: repository of its training data, if that is published.
        licence: the student's.
        base_licence: the base's.
        teachers: each teacher's name and licence.
        warnings: warnings about licences.
        extras: `adapter`: whether the adapter is published too; `branches`: names of checkpoint branches.
    """
    metadata = _metadata(facts, repo, dataset, licence)
    body = render(TEMPLATE, _values(facts, repo, dataset, licence, base_licence, teachers, warnings, extras))
    return redact(front_matter(metadata) + body)


def licence_metadata(licence: Licence) -> dict[str, str]:
    """Return the front matter for a licence; empty if it is unknown."""
    if licence.id == "unknown":
        return {}
    named = {"license_name": licence.name or licence.id} if licence.id == "other" else {}
    return {"license": licence.id, **named, **({"license_link": licence.link} if licence.link else {})}


def language_metadata(facts: RunFacts) -> list[str]:
    """Return the language that the filter required; empty if it required none or accepted several."""
    language = facts.recipe.filter.readability.language
    return [str(language)] if language in get_args(Language) else []


def _metadata(facts: RunFacts, repo: str, dataset: str | None, licence: Licence) -> dict[str, Any]:
    method = facts.made.method
    return {
        "language": language_metadata(facts),
        **licence_metadata(licence),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": facts.base if facts.base_is_on_hub else None,
        # Not "adapter": with LoRA the weights at the root are the merged ones.
        "base_model_relation": "finetune" if facts.base_is_on_hub else None,
        "datasets": [*([dataset] if dataset else []), *filter(is_hub_id, facts.hub_datasets)],
        "tags": ["reasoning", "distillation", "distill", *_more_tags(facts, method)],
        "model-index": _model_index(facts, repo),
    }


def _more_tags(facts: RunFacts, method: str) -> list[str]:
    reinforced = ["reinforcement-learning"] if facts.reinforced is not None else []
    return reinforced + (["lora"] if method in ("lora", "qlora") else [])


def _model_index(facts: RunFacts, repo: str) -> list[dict[str, Any]]:
    places = benchmark_places(facts)
    results = []
    for row in scores_by_benchmark(facts):
        if row.student.pass_at_1 is None or not row.student.is_complete:
            continue  # its readers would not see the mark
        place = places.get(row.name)
        low, high = row.student.interval_95
        dataset = {"name": row.name, "type": place.dataset if place else row.name}
        if place:
            dataset |= {"config": place.config or "default", "split": place.split}
            dataset |= {"revision": place.revision} if place.revision else {}
        k = row.student.samples_per_problem
        name = protocol_of(facts, row).metric or PASS_AT_1
        metric = {
            "type": name,
            "name": f"{name} (mean of {k} samples, percent)" if k > 1 else f"{name} (percent)",
            "value": round(100 * row.student.pass_at_1, 2),
            "args": {
                "interval_95_percent": [round(100 * low, 2), round(100 * high, 2)],
                "num_problems": row.student.num_problems,
                **{key: value for key, value in protocol_of(facts, row).to_json().items() if value is not None},
            },
        }
        results.append({"task": {"type": "text-generation"}, "dataset": dataset, "metrics": [metric]})
    return [{"name": repo.partition("/")[2], "results": results}] if results else []


def _values(
    facts: RunFacts,
    repo: str,
    dataset: str | None,
    licence: Licence,
    base_licence: Licence,
    teachers: Sequence[tuple[str, Licence]],
    warnings: Sequence[str],
    extras: Mapping[str, Any],
) -> dict[str, Any]:
    built_with = dict.fromkeys(one.built_with for one in (base_licence, *(one for _, one in teachers)))
    return {
        "marker": _literal(MARKER),
        "name": repo.partition("/")[2],
        "repo": repo,
        "repo_literal": _literal(json.dumps(repo)),
        "question_literal": _literal(json.dumps(_example(facts), ensure_ascii=False)),
        "description": facts.recipe.description,
        "dataset": dataset,
        "base": facts.base,
        "base_on_hub": facts.base_is_on_hub,
        "base_revision": facts.base_revision,
        "base_licence": base_licence,
        "licence": licence,
        "built_with": [words for words in built_with if words],
        "teachers": [(local_name(name), is_hub_id(name), one) for name, one in teachers[:NUM_TEACHERS_SHOWN]],
        "num_more_teachers": max(0, len(teachers) - NUM_TEACHERS_SHOWN),
        "warnings": warnings,
        "scores": scores_by_benchmark(facts),
        "scored": scored,
        "gained": gained,
        "metrics": [(name, METRICS[name]) for name in _metrics(facts) if name in METRICS],
        "told": [told for row in scores_by_benchmark(facts) for told in _told(row)],
        "protocols": {row.name: protocol_of(facts, row) for row in scores_by_benchmark(facts)},
        **_sampling(facts),
        "filtered": facts.filtered if facts.row_runs else None,
        "funnel": funnel(facts.filtered) if facts.row_runs else [],
        "unproven": any(one.recipe.filter.unanswered == "keep" for one in facts.row_runs),
        "majority": facts.recipe.filter.majority is not None or facts.recipe.filter.judge is not None,
        "sources": sources(facts),
        "certificate": facts.certificate or {"sets": []},
        "trained": facts.trained,
        "hyperparameters": _hyperparameters(facts) if facts.recorded(SftMetrics) is not None else [],
        "first_loss": _first_loss(facts.trained) if facts.trained is not None else None,
        "reinforced": facts.reinforced,
        "reinforcement": _reinforcement(facts),
        "hardware": _hardware(facts),
        "stages": [
            (kind_of(stage).does, stage, manifest.get("seconds"), manifest.get("peak_memory_gib"))
            for stage, manifest in facts.manifests.items()
        ],
        "lineage": lineage(facts),
        "seconds": facts.seconds,
        "context": _context(facts),
        "language": next(iter(language_metadata(facts)), None),
        "adapter": extras["adapter"],
        "branches": extras["branches"],
        "version": __version__,
    }


def _metrics(facts: RunFacts) -> list[str]:
    return list(dict.fromkeys(protocol_of(facts, row).metric or PASS_AT_1 for row in scores_by_benchmark(facts)))


def _told(row: Benchmark) -> Iterator[str]:
    """Yield what else a reader must know of a benchmark's scores: what is missing, other figures, warnings."""
    for who, score in (("the base", row.base), ("this model", row.student)):
        of = f"{row.name}, {who}"
        if score.bounds is not None:
            num = counted(score.num_missing + score.num_ungraded, "sample")
            low, high = (in_percent(limit) for limit in score.bounds)
            yield f"{of}: incomplete, {num} failed or could not be graded; the score is between {low} and {high}"
        for key, figure in score.figures.items():
            yield f"{of}: {key.replace('_', ' ')} {_figure(figure, unit_of(key))}"
        yield from (f"{of}: {flag}" for flag in score.flags)
        if score.contamination is not None and score.contamination.num_hit:
            num = counted(score.contamination.num_hit, "item")
            yield f"{of}: {num} among the training rows; {in_percent(score.contamination.pass_at_1)} on the others"


def _figure(figure: Figure, unit: Unit) -> str:
    """Return a figure with its interval: a share in percent, a rating or a count as a whole number."""
    limits = figure.interval_95
    if unit == "share":
        return in_percent(figure.value) + ("" if limits is None else f" ({interval(limits)})")
    return f"{figure.value:.0f}" + ("" if limits is None else f" ({limits[0]:.0f} to {limits[1]:.0f})")


def scored(score: EvalResult, mark: str = "") -> Safe:
    """Return a score in percent between two marks, with its interval; one that is not complete is told."""
    if score.pass_at_1 is None:
        return Safe("not known")
    told = "" if score.is_complete else ", incomplete"
    return Safe(f"{mark}{in_percent(score.pass_at_1)}{mark} ({interval(score.interval_95)}{told})")


def gained(difference: Difference) -> str:
    """Return a difference in points with its interval; one that is not complete is marked."""
    return difference.text.replace(" points", "")


def lineage(facts: RunFacts) -> list[dict[str, Any]]:
    """Return what each round that went into the model did, in order; empty without rounds."""
    if facts.recipe.round_name is None:
        return []
    rounds = {**facts.earlier, facts.recipe.round_name: facts}
    found = []
    for name, one in rounds.items():
        recipe, trained, kept = one.recipe, one.recorded(SftMetrics), one.recorded(FilterMetrics)
        makes = one.started_from is not None
        teachers = [local_name(teacher) for teacher, _ in one.teachers] if one.source in one.manifests else []
        found.append(
            {
                "name": name,
                "imported": ", ".join(source_label(source) for source in recipe.traces),
                "teachers": ", ".join(teachers[:NUM_TEACHERS_SHOWN]),
                "num_traces": kept and kept.num_traces,
                "num_kept": kept and kept.num_kept,
                "is_unproven": recipe.filter.unanswered == "keep",
                "student": f"round:{recipe.student_round}" if recipe.student_round else one.base if makes else "",
                "rows": " and ".join(str(row) for row in recipe.row_rounds) if trained else "",
                "num_rows": trained and trained.num_rows,
                "trained": trained and _in_words(recipe.sft, trained),
                "reinforced": _reinforced_in_words(one),
                "num_steps": one.reinforced and one.reinforced.num_steps,
                "score": one.scores and one.scores.student,
                "gate": _gate(one),
            }
        )
    return found


def _in_words(config: SftConfig, trained: SftMetrics) -> str:
    weights = "all weights" if config.method == "full" else config.method
    return f"{weights}, {config.epochs:g} epoch{'' if config.epochs == 1 else 's'}, rate {trained.learning_rate:.3g}"


def _reinforced_in_words(facts: RunFacts) -> str:
    made, config = facts.reinforced, facts.recipe.rl
    if made is None or config is None:
        return ""
    told = f"{counted(made.num_steps, 'step')} of {made.prompts_per_step} problems with {made.group_size} answers each"
    rewards = ", ".join(f"{part} {weight:g}" for part, weight in config.reward.weights.items())
    judge = judge_of(facts.recipe)
    judged = f"; {local_name(judge.model)} judges what no rule can grade" if judge is not None else ""
    by = "" if config.algorithm == "distill" else f"; reward {rewards}{judged}"
    stopped = f"; ended early by {made.stopped_by}" if made.stopped_by else ""
    return f"{told}{by}{stopped}"


def _gate(facts: RunFacts) -> str:
    """Return whether a round's gate held; empty if it had none."""
    found = read_object(facts.run_dir / GATE) or {}
    if not found.get("limits"):
        return ""
    return "held" if found.get("passed") is True else "did not hold, and was passed all the same"


def _literal(text: str) -> Safe:
    """Return one line that is not escaped: the marker, or a string in a code block."""
    return Safe(one_line(text))


def funnel(filtered: FilterMetrics) -> list[tuple[str, int, str]]:
    """Return (reason, number of traces, explanation) of each first reason for a drop, in the order of the metrics."""
    return [(reason, num, REASONS.get(reason, "")) for reason, num in filtered.dropped.items()]


def sources(facts: RunFacts) -> list[dict[str, Any]]:
    """Return each source with its revision and its counts."""
    filtered = facts.filtered.by_source if facts.row_runs else {}
    by_source = {label: one.to_json() for label, one in filtered.items()}
    pinned = dict(shown_sources(facts))
    labels = list(dict.fromkeys((*pinned, *by_source)))
    hub = {source_label(source): source.source[3:] for source in facts.sources if source.source.startswith("hf:")}
    return [
        {"label": label, "hub": hub.get(label), "revision": pinned.get(label, ""), **by_source.get(label, {})}
        for label in labels
    ]


def _example(facts: RunFacts) -> str:
    """Return an example question in the prompt template of the training problems."""
    return facts.sources[0].template.replace("{problem}", QUESTION).replace("{options}", "").strip()


def _sampling(facts: RunFacts) -> dict[str, Safe]:
    """Return sampling arguments as code: those of the evaluation, else the defaults (R1's protocol)."""
    wanted = facts.recipe.eval.sampling if facts.recipe.eval else EvalSampling()
    drawn = f"temperature={wanted.temperature}, top_p={wanted.top_p}"
    num_tokens = min(wanted.max_tokens, MAX_NEW_TOKENS)
    greedy = wanted.temperature == 0
    return {
        "transformers_sampling": Safe(
            f"{'do_sample=False' if greedy else f'do_sample=True, {drawn}'}, max_new_tokens={num_tokens}"
        ),
        "vllm_sampling": Safe(f"{'temperature=0.0' if greedy else drawn}, max_tokens={num_tokens}"),
    }


def _hyperparameters(facts: RunFacts) -> list[tuple[str, Any]]:
    """Return the training settings as (name, text)."""
    config, trained = facts.recipe.sft, facts.recorded(SftMetrics)
    assert trained is not None
    shown: dict[str, Any] = {
        "method": config.method,
        "epochs": f"{config.epochs:g}",
        "batch size": f"{config.batch_size} rows",
        "learning rate": f"{trained.learning_rate:.3g}",
        "schedule": f"cosine to {config.min_learning_rate_share:g} of the peak, warm-up over {config.warmup_share:.0%}",
        "weight decay": f"{config.weight_decay:g}",
        "longest row": f"{config.max_length:,} tokens",
        "precision": trained.device and trained.device.dtype,
        "seed": facts.recipe.seed,
    }
    if config.method != "full":
        lora = config.lora or Lora()
        shown["adapter"] = f"LoRA, r {lora.r}, alpha {lora.alpha}, dropout {lora.dropout:g}, merged into the weights"
    if config.trl:
        shown["more TRL arguments"] = json.dumps(scrub(config.trl))
    return [(name, value) for name, value in shown.items() if value is not None]


def _reinforcement(facts: RunFacts) -> list[tuple[str, Any]]:
    """Return the settings and results of reinforcement learning as (name, text); empty if there was none."""
    made, config = facts.reinforced, facts.recipe.rl
    if made is None or config is None:
        return []
    weights = ", ".join(f"{part} {weight:g}" for part, weight in config.reward.weights.items())
    shares = [point.pass_at_1 for point in made.probe if point.pass_at_1 is not None]
    shown: dict[str, Any] = {
        "algorithm": made.algorithm if made.algorithm == made.loss else f"{made.algorithm}, loss {made.loss}",
        "method": made.method,
        "steps": f"{made.num_steps:,} of {made.num_wanted_steps:,}",
        "a step": f"{made.prompts_per_step:,} problems, {made.group_size} answers each",
        "rollouts": f"{made.num_rollouts:,} of {made.num_rollout_tokens:,} tokens in all",
        "reward": weights,
        "mean reward at the end": None if made.mean_reward is None else f"{made.mean_reward:.3f}",
        "held-out problems, before and after": f"{shares[0]:.1%}, {shares[-1]:.1%}" if shares else None,
        "learning rate": f"{made.learning_rate:.3g}",
        "KL weight": f"{config.kl:g}",
        "longest answer": f"{config.max_tokens:,} tokens",
        "prompts": config.prompt_format,
        "stopped by": made.stopped_by,
    }
    return [(name, value) for name, value in shown.items() if value is not None]


def _first_loss(trained: SftMetrics) -> float | None:
    first = trained.history[0].get("loss") if trained.history else None
    return first if isinstance(first, int | float) and math.isfinite(first) else None


def _hardware(facts: RunFacts) -> str:
    """Return the hardware that training ran on."""
    found = facts.manifests[facts.recipe.making_stage or ""].get("hardware", {})
    gpus = found.get("gpus") or []
    cores = f"{found.get('num_cores')} cores of {found['cpu']}" if found.get("cpu") else ""
    memory = f"{found['memory_gib']:.0f} GiB of memory" if found.get("memory_gib") else ""
    kinds = [f"{gpus.count(gpu)} x {gpu}" for gpu in dict.fromkeys(gpus)]
    return ", ".join(part for part in (*kinds, cores, memory) if part) or "not recorded"


def _context(facts: RunFacts) -> int | None:
    config = read_json(facts.files.student / "config.json") or {}
    found = config.get("max_position_embeddings")
    return found if isinstance(found, int) else None
