"""What a run folder has shown counts: of imported traces the kept rows themselves, where nobody has counted tokens."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.estimates.measured import measure
from distill.estimates.stage import TOKENS
from distill.estimates.text_tokens import TokenRate
from distill.filters.funnel import Funnel
from distill.recipe.model import Recipe
from distill.results.import_traces import ImportMetrics
from distill.storage.fingerprints import fingerprint
from distill.storage.run_folder import Manifest, StageFolder

COMPLETION = "<think>\nFirst add 3 and 4, which gives 7.\n</think>\n\nThe answer is \\boxed{7}."
NUM_ROWS = 40


def finish(folder, identity, metrics):
    stage = StageFolder(folder)
    stage.claim(identity)
    stage.complete(
        Manifest(
            stage=folder.name,
            fingerprint=fingerprint(identity),
            identity=identity,
            config={},
            outputs={},
            metrics=metrics,
            versions={},
            hardware={},
            git_commit=None,
            seconds=1.0,
            peak_memory_gib=0.1,
            finished_at="2026-01-01T00:00:00+00:00",
        )
    )


@pytest.fixture
def filtered(tmp_path, rows_file):
    """A recipe of imported traces and its run folder, its filter done with these metrics."""

    def make(**metrics):
        source = rows_file([{"problem": f"{i}?", "answer": "7", "response": COMPLETION} for i in range(NUM_ROWS)])
        recipe = Recipe.model_validate(
            {"name": "small", "student": "smollm2-135m", "traces": [{"source": source}], "sft": {"epochs": 1}}
        )
        run_dir = tmp_path / "runs" / "small"
        imported = {
            "num_samples": NUM_ROWS,
            "num_problems": NUM_ROWS,
            "num_problems_by_source": {"file:rows.jsonl": NUM_ROWS},
            "num_completion_tokens": 0,
            "num_skipped": 0,
            "finish_reasons": {"stop": NUM_ROWS},
        }
        finish(run_dir / "import", {"traces": [{"limit": None}]}, imported)
        finish(
            run_dir / "filter",
            recipe.filter.model_dump(mode="json", exclude={"compute", "judge"}) | {"judge": None},
            {**Funnel().metrics().to_json(), "num_kept": NUM_ROWS, "num_traces": NUM_ROWS, **metrics},
        )
        kept = run_dir / "filter" / "kept"
        kept.mkdir()
        rows = [
            {
                "prompt": [{"role": "user", "content": "What is 3 + 4?"}],
                "completion": [{"role": "assistant", "content": COMPLETION}],
            }
        ] * NUM_ROWS
        pq.write_table(pa.Table.from_pylist(rows), kept / "train-00000-of-00001.parquet")
        return recipe, run_dir

    return make


@pytest.mark.parametrize("metrics", [{}, {"num_kept_tokens": 0}, {"num_kept_tokens": None}])
def test_rows_that_nobody_has_counted_are_measured_by_their_texts(filtered, metrics):
    recipe, run_dir = filtered(**metrics)
    kept = measure(run_dir, recipe, TokenRate()).kept
    assert kept.num_rows == NUM_ROWS
    assert kept.completion_tokens.low == pytest.approx(len(COMPLETION) / 4.2)
    assert kept.completion_tokens.high == pytest.approx(len(COMPLETION) / 2.5)
    assert kept.prompt_tokens.low > 2
    assert kept.longest_tokens >= kept.completion_tokens.high


def test_counted_tokens_go_before_an_estimate(filtered):
    recipe, run_dir = filtered(num_kept_tokens=NUM_ROWS * 31)
    kept = measure(run_dir, recipe, TokenRate()).kept
    assert (kept.completion_tokens.low, kept.completion_tokens.high) == (31, 31)


def test_the_plan_after_a_filter_is_about_the_rows_that_are_there(filtered, plan_of):
    recipe, _ = filtered()
    plan = plan_of(
        **{key: value for key, value in recipe.model_dump(mode="json").items() if key not in ("name", "student")}
    )
    sft = next(stage for stage in plan.stages if stage.stage == "sft").quantities[TOKENS]
    true = NUM_ROWS * (len(COMPLETION) / 3 + 25)
    assert sft.low <= true <= sft.high
    assert sft.low > 0.3 * true
    assert f"{NUM_ROWS} rows" in sft.basis


def test_damaged_rows_do_not_stop_a_plan(filtered):
    recipe, run_dir = filtered()
    (run_dir / "filter" / "kept" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 no more")
    assert measure(run_dir, recipe, TokenRate()).kept.longest_tokens is None


def test_what_was_imported_counts_by_its_manifest(filtered):
    recipe, run_dir = filtered()
    assert measure(run_dir, recipe, TokenRate()).imported.num_traces == NUM_ROWS


@pytest.mark.parametrize(
    ("metrics", "tokens"),
    [
        ({"num_completion_tokens": 0}, None),
        ({}, None),
        ({"num_completion_tokens": None}, None),
        ({"num_completion_tokens": 7}, 7),
    ],
)
def test_tokens_that_nobody_has_counted_are_unknown_and_not_0(metrics, tokens):
    counts = {"num_samples": 1, "num_problems": 1, "num_problems_by_source": {"file:a": 1}, "num_skipped": 0}
    found = ImportMetrics.from_json({**counts, "finish_reasons": {"stop": 1}, **metrics})
    assert found.tokens_spent == tokens
