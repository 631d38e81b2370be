"""The model repository's README.md with its front matter.

It holds no text that a model wrote, and every value is escaped (see `distill.publish.markdown`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from distill import __version__
from distill.core.records import REASONS
from distill.core.redaction import local_name, redact, scrub
from distill.publish.eval_results import benchmark_places, scores_by_benchmark
from distill.publish.facts import NUM_TEACHERS_SHOWN, RunFacts, is_hub_id, shown_sources
from distill.publish.licences import Licence
from distill.publish.markdown import Safe, front_matter, one_line, render
from distill.recipe.base import Language
from distill.recipe.sampling import EvalSampling
from distill.recipe.sft import Lora
from distill.results.filter import FilterMetrics
from distill.results.kinds import kind_of
from distill.results.sft import SftMetrics
from distill.sources.problems import source_label
from distill.storage.files import read_json
from distill.storage.run_files import TRAINED

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
    method = facts.trained.method
    return {
        "language": language_metadata(facts),
        **licence_metadata(licence),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": facts.base if facts.base_is_on_hub else None,
        # Not "adapter": with LoRA the weights at the root are the merged ones.
        "base_model_relation": "finetune" if facts.base_is_on_hub else None,
        "datasets": [*([dataset] if dataset else []), *filter(is_hub_id, facts.hub_datasets)],
        "tags": ["reasoning", "distillation", "distill", *(["lora"] if method in ("lora", "qlora") else [])],
        "model-index": _model_index(facts, repo),
    }


def _model_index(facts: RunFacts, repo: str) -> list[dict[str, Any]]:
    places = benchmark_places(facts)
    protocol = facts.scores.protocol.to_json() if facts.scores else {}
    results = []
    for row in scores_by_benchmark(facts):
        place = places.get(row.name)
        low, high = row.student.interval_95
        dataset = {"name": row.name, "type": place.dataset if place else row.name}
        if place:
            dataset |= {"config": place.config or "default", "split": place.split}
            dataset |= {"revision": place.revision} if place.revision else {}
        k = row.student.samples_per_problem
        metric = {
            "type": "pass@1",
            "name": f"pass@1 (mean of {k} samples, percent)" if k > 1 else "pass@1 (percent)",
            "value": round(100 * row.student.pass_at_1, 2),
            "args": {
                "interval_95_percent": [round(100 * low, 2), round(100 * high, 2)],
                "num_problems": row.student.num_problems,
                **{key: value for key, value in protocol.items() if value is not None},
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
        "protocol": facts.scores and facts.scores.protocol,
        **_sampling(facts),
        "filtered": facts.filtered,
        "funnel": funnel(facts.filtered),
        "majority": facts.recipe.filter.majority is not None or facts.recipe.filter.judge is not None,
        "sources": sources(facts),
        "certificate": facts.certificate,
        "trained": facts.trained,
        "hyperparameters": _hyperparameters(facts),
        "first_loss": _first_loss(facts.trained),
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


def lineage(facts: RunFacts) -> list[dict[str, Any]]:
    """Return what each round that went into the model did, in order; empty without rounds."""
    if facts.recipe.round_name is None:
        return []
    rounds = {**facts.earlier, facts.recipe.round_name: facts}
    found = []
    for name, one in rounds.items():
        recipe, trained, kept = one.recipe, one.recorded(SftMetrics), one.recorded(FilterMetrics)
        teachers = [local_name(teacher) for teacher, _ in one.teachers] if one.source in one.manifests else []
        found.append(
            {
                "name": name,
                "teachers": ", ".join(teachers[:NUM_TEACHERS_SHOWN]),
                "num_traces": kept and kept.num_traces,
                "num_kept": kept and kept.num_kept,
                "student": f"round:{recipe.student_round}" if recipe.student_round else one.base if trained else "",
                "rows": ", ".join(str(row) for row in recipe.row_rounds) if trained else "",
                "num_rows": trained and trained.num_rows,
                "pass_at_1": one.scores and one.scores.student.pass_at_1,
            }
        )
    return found


def _literal(text: str) -> Safe:
    """Return one line that is not escaped: the marker, or a string in a code block."""
    return Safe(one_line(text))


def funnel(filtered: FilterMetrics) -> list[tuple[str, int, str]]:
    """Return (reason, number of traces, explanation) of each first reason for a drop, in the order of the metrics."""
    return [(reason, num, REASONS.get(reason, "")) for reason, num in filtered.dropped.items()]


def sources(facts: RunFacts) -> list[dict[str, Any]]:
    """Return each source with its revision and its counts."""
    by_source = {label: one.to_json() for label, one in facts.filtered.by_source.items()}
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
    config = facts.recipe.sft
    shown: dict[str, Any] = {
        "method": config.method,
        "epochs": f"{config.epochs:g}",
        "batch size": f"{config.batch_size} rows",
        "learning rate": f"{facts.trained.learning_rate:.3g}",
        "schedule": f"cosine to {config.min_learning_rate_share:g} of the peak, warm-up over {config.warmup_share:.0%}",
        "weight decay": f"{config.weight_decay:g}",
        "longest row": f"{config.max_length:,} tokens",
        "precision": facts.trained.device and facts.trained.device.dtype,
        "seed": facts.recipe.seed,
    }
    if config.method != "full":
        lora = config.lora or Lora()
        shown["adapter"] = f"LoRA, r {lora.r}, alpha {lora.alpha}, dropout {lora.dropout:g}, merged into the weights"
    if config.trl:
        shown["more TRL arguments"] = json.dumps(scrub(config.trl))
    return [(name, value) for name, value in shown.items() if value is not None]


def _first_loss(trained: SftMetrics) -> float | None:
    first = trained.history[0].get("loss") if trained.history else None
    return first if isinstance(first, int | float) and math.isfinite(first) else None


def _hardware(facts: RunFacts) -> str:
    """Return the hardware that training ran on."""
    found = facts.manifests[TRAINED].get("hardware", {})
    gpus = found.get("gpus") or []
    cores = f"{found.get('num_cores')} cores of {found['cpu']}" if found.get("cpu") else ""
    memory = f"{found['memory_gib']:.0f} GiB of memory" if found.get("memory_gib") else ""
    kinds = [f"{gpus.count(gpu)} x {gpu}" for gpu in dict.fromkeys(gpus)]
    return ", ".join(part for part in (*kinds, cores, memory) if part) or "not recorded"


def _context(facts: RunFacts) -> int | None:
    config = read_json(facts.files.student / "config.json") or {}
    found = config.get("max_position_embeddings")
    return found if isinstance(found, int) else None
