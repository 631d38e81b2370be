"""The sampling loop of generate and eval, which stores one durable ledger record for each sample."""

import contextlib
import os
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from distill.core.forecast import Outlook, SamplingForecast
from distill.core.progress import ProgressBar
from distill.core.records import Problem, SampleKey, Trace
from distill.core.stop_signals import Stopping
from distill.core.thinking import split_reasoning, whole_characters
from distill.engines.base import Completion, Engine
from distill.engines.start import start_engine
from distill.grading.background import BackgroundGrader
from distill.recipe.sampling import Price, SamplingCompute
from distill.recipe.sandbox import SandboxConfig
from distill.sampling.call_counts import CallCounts
from distill.sampling.errors import ErrorWatch, stopped_by_errors
from distill.sampling.job import SamplingJob, engine_spec, make_request, read_problems, sample_seed, sample_sets
from distill.sampling.sample_queue import SampleQueue
from distill.sampling.sets import IsNarrowEnough, SampleSet, num_wanted
from distill.storage.files import read_json, write_json
from distill.storage.ledger import Ledger, Tally, read_ledger
from distill.storage.trace_store import stored, stored_traces

ENGINE = "engine.json"
"""Settings of the engine that was used last, next to the ledger."""
LIVE = "live.json"
"""Latest progress of the running process, next to the ledger; removed when it ends."""
SHOW_EVERY_S = 1.0
"""Interval between updates of the live view and `live.json`."""

HINT_AFTER = 64
HINT_SHARE = 0.9
"""Once `HINT_AFTER` samples have ended: share of them cut off or looping, from which a hint on settings is shown."""


def run_sampling(
    job: SamplingJob, engine: Engine | None = None, is_narrow_enough: IsNarrowEnough | None = None
) -> dict[str, Any]:
    """Sample what is missing and store it.

    SIGTERM and Ctrl-C let the samples in flight finish within `compute.drain_s`; a longer engine step is interrupted.

    Args:
        job: what to sample.
        engine: engine to use; default: the one that `job.compute` asks for, started only if samples are missing.
        is_narrow_enough: decides when adaptive sets end; default: `distill.scores.sequence`'s.

    Returns:
        The settings of the engine that drew last (`None` if none has), and of this call the samples and tokens drawn,
        the seconds spent drawing and, if it drew, how many were graded and correct.

    Raises:
        ModelError, StoreError: see the engines and the ledger.
        StageError: more than `compute.max_error_share` of the samples ended in errors.
        KeyboardInterrupt: stopped by a signal; finished samples are in the ledger.
    """
    folder = Path(job.ledger).parent
    problems = read_problems(Path(job.problems))
    with Ledger(Path(job.ledger)) as ledger, _maybe_grader(job) as grader:
        found = stored(folder).with_ledger(ledger.index)
        max_share = SamplingCompute.model_validate(job.compute).max_error_share
        again = found.errors if job.retry_errors or stopped_by_errors(found, ledger.index, max_share) else set()
        sets = sample_sets(job, problems)
        if is_narrow_enough is None and any(one.adaptive for one in sets):
            from distill.scores import sequence

            is_narrow_enough = sequence.is_narrow_enough
        done = found.keys - again
        waiting = SampleQueue(sets, done, job.stop_after_correct, is_narrow_enough)
        again = again & set(waiting)
        found.tally.finish_reasons["error"] -= len(again)  # they are counted again when they finish
        nothing = {"engine": read_json(folder / ENGINE), "num_sampled": 0, "num_tokens": 0, "seconds": 0.0}
        if not waiting:
            return nothing
        loop = _Loop(job, problems, sets, waiting, again, ledger, grader, found.tally)
        loop.grade_earlier_samples(folder, done)
        if not waiting.is_more_wanted:  # the earlier samples are enough: no engine needed
            loop.skip_the_rest()
            return nothing
        engine = engine or start_engine(engine_spec(job, problems, waiting))
        write_json(folder / ENGINE, engine.settings)
        try:
            return {**loop.run(engine), "engine": engine.settings}
        finally:
            # Before `close`: a caller that waits for the engine to end may kill this process.
            (folder / LIVE).unlink(missing_ok=True)
            engine.close()


class _Loop:
    """State of one call, which keeps an engine full until every sample is in the ledger."""

    def __init__(
        self,
        job: SamplingJob,
        problems: dict[str, Problem],
        sets: Sequence[SampleSet],
        waiting: SampleQueue,
        again: Set[SampleKey],
        ledger: Ledger,
        grader: BackgroundGrader | None,
        tally: Tally,
    ) -> None:
        self._job, self._problems, self._ledger, self._grader = job, problems, ledger, grader
        self._sets, self._waiting = sets, waiting
        self._again = again
        """Waiting samples that are stored as errors."""
        self._tally = tally
        """Everything in the run folder, including traces of earlier calls."""
        self._num_skipped = 0
        self._num_graded = self._num_correct = 0
        self._total = num_wanted(sets)
        self._plain = [one.sampling.model_dump(mode="json") for one in sets] if job.sets else [job.sampling]
        """The sampling of each set, as traces record it."""
        self._price = None if job.price is None else Price.model_validate(job.price)
        self._compute = SamplingCompute.model_validate(job.compute)
        self._watch = ErrorWatch(job.title, self._compute.max_error_share, tally, len(again) == len(waiting))
        self._counts = CallCounts(sets, waiting)
        self._shown_at = 0.0
        self._outlook = Outlook(0.0, None)
        self._note = ""
        """Figures of the live view, besides the bar's own."""

    def grade_earlier_samples(self, folder: Path, done: Set[SampleKey]) -> None:
        """Grade the samples in `done` of problems that still lack some, if their grades decide which are needed."""
        if self._grader is None or not (open_problems := self._waiting.open_problems):
            return
        for source in (stored_traces(folder), read_ledger(Path(self._job.ledger))):
            for trace in source:
                if trace.problem_id in open_problems:
                    self._grader.submit(self._problems[trace.problem_id], trace)
        while self._grader.num_waiting:
            self._take_grades(wait_s=1.0, drawn_earlier=True)
        self._waiting.settle_ungraded(done)
        self._skip()

    def skip_the_rest(self) -> None:
        """Record that none of the waiting samples will be requested."""
        self._waiting.pop()
        self._skip()

    def run(self, engine: Engine) -> dict[str, Any]:
        """Sample until nothing is waiting or in flight, or until a signal."""
        self._started = time.monotonic()
        self._forecast = SamplingForecast(max(one.sampling.max_tokens for one in self._sets), self._started)
        with (
            ProgressBar(
                self._job.title,
                self._total,
                "samples",
                done=self._total - len(self._waiting),
                forecast=lambda: self._outlook.seconds_left,
            ) as progress,
            Stopping(self._compute.drain_s, lambda: self._say_stopping(engine, progress)) as stop,
        ):
            while ((self._waiting and not stop.is_asked) or engine.num_in_flight) and not stop.is_over:
                refused, num_skipped = ([], 0) if stop.is_asked else self._fill(engine)
                is_idle = not engine.num_in_flight and not refused  # the next samples wait for grades
                with stop.interruptible():
                    finished = refused + ([] if is_idle else engine.step())
                self._store(finished)
                self._take_grades(wait_s=0.2 if is_idle else 0.0)
                num_skipped += self._skip()
                self._watch.show(engine, progress)
                self._show(engine, progress, len(finished) + num_skipped)
                self._hint(progress)
                self._watch.refuse_early()
            seconds = time.monotonic() - self._started
            if stop.is_asked:
                raise KeyboardInterrupt
            while self._grader is not None and self._grader.num_waiting:
                self._take_grades(wait_s=0.2)
                self._show(engine, progress, 0)
            self._watch.refuse()
        return {
            "num_sampled": self._counts.num_sampled,
            "num_tokens": self._counts.num_tokens,
            "seconds": seconds,
            "num_graded": self._num_graded,
            "num_correct": self._num_correct,
        }

    def _say_stopping(self, engine: Engine, progress: ProgressBar) -> None:
        progress.say(
            f"Stopping: up to {self._compute.drain_s:g} s for the {engine.num_in_flight} samples in flight to finish. "
            "A second signal stops at once."
        )

    def _fill(self, engine: Engine) -> tuple[list[Completion], int]:
        """Submit as many requests as the engine takes; return those refused and how many are no longer needed."""
        refused: list[Completion] = []
        while engine.num_in_flight < engine.max_in_flight and (key := self._waiting.pop()) is not None:
            number = self._waiting.set_of[key[0]]
            sampling = self._sets[number].sampling if self._job.sets else None
            self._counts.request(number)
            completion = engine.submit(make_request(self._job, self._problems[key[0]], key, sampling))
            if completion is not None:
                refused.append(completion)
        return refused, self._skip()

    def _skip(self) -> int:
        """Record the samples that have become needless, and return their number."""
        needless = self._waiting.take_needless()
        undrawn: dict[str, list[SampleKey]] = {}
        for key, why in needless:
            if key in self._again:
                self._tally.finish_reasons["error"] += 1  # it stays stored as an error
            else:
                undrawn.setdefault(why, []).append(key)
        for why, keys in undrawn.items():
            self._ledger.skip(keys, why)
            self._num_skipped += len(keys)
        return len(needless)

    def _store(self, finished: Sequence[Completion]) -> None:
        numbers = [self._waiting.set_of[completion.key[0]] for completion in finished]
        traces = [make_trace(self._job, one, self._plain[set_]) for one, set_ in zip(finished, numbers, strict=True)]
        self._ledger.append(traces)
        for trace, number in zip(traces, numbers, strict=True):
            self._tally.add(trace.finish_reason, trace.num_prompt_tokens, trace.num_completion_tokens)
            self._counts.add(number, trace)
            self._watch.add(trace.finish_reason, trace.error)
            if trace.finish_reason == "error":
                self._waiting.settle(trace.key, None)
            elif self._grader is not None:
                self._grader.submit(self._problems[trace.problem_id], trace)

    def _take_grades(self, wait_s: float = 0.0, drawn_earlier: bool = False) -> None:
        if self._grader is None:
            return
        for key, grade in self._grader.ready(wait_s):
            self._num_graded += grade.correct is not None and not drawn_earlier
            self._num_correct += grade.correct is True and not drawn_earlier
            self._waiting.settle(key, grade.correct)

    def _cost(self) -> float | None:
        return None if self._price is None else cost(self._tally, self._price)

    def _show(self, engine: Engine, progress: ProgressBar, num_settled: int) -> None:
        """Advance the bar; periodically update the figures of the bar and of `--status`."""
        now = time.monotonic()
        if now - self._shown_at >= SHOW_EVERY_S:
            self._shown_at = now
            drawn = self._counts.drawn(engine)
            self._outlook = self._forecast.look(drawn, now, self._counts.drawn_by_set(drawn))
            self._note = self._figures()
        progress.advance(num_settled, self._note)
        if self._shown_at == now:
            self._write_live(progress)

    def _figures(self) -> str:
        tally, spent = self._tally, self._cost()
        num, parts = max(1, tally.num_samples), []
        if self._outlook.tokens_per_s:
            parts.append(f"{self._outlook.tokens_per_s:,.0f} tokens/s")
        if tally.num_samples:
            parts.append(f"{tally.finish_reasons['length'] / num:.0%} cut off")
        seldom = [reason for reason in ("loop", "error") if tally.finish_reasons[reason]]
        parts += [f"{tally.finish_reasons[reason] / num:.1%} {reason}" for reason in seldom]
        if self._num_skipped:
            parts.append(f"{self._num_skipped:,} not needed")
        if self._num_graded:
            parts.append(f"{self._num_correct / self._num_graded:.0%} right")
        if spent is not None and self._price is not None:
            parts.append(f"{spent:,.2f} {self._price.currency}")
            if self._num_correct:
                # Correct answers of earlier calls are not counted, so neither is their cost.
                own = spent * self._counts.num_sampled / num
                parts.append(f"{own / self._num_correct:.4f} per correct answer")
        return ", ".join(parts)

    def _hint(self, progress: ProgressBar) -> None:
        num, num_cut = self._counts.num_sampled, self._counts.num_cut
        if num >= HINT_AFTER and num_cut >= HINT_SHARE * num:
            progress.say_once(
                f"{num_cut} of the first {num} samples did not end by themselves: sampling.max_tokens may be too low, "
                "or the model does not follow its chat template (a base model, say)."
            )

    def _write_live(self, progress: ProgressBar) -> None:
        """Write the progress for `--status`, which only reads files."""
        live = {
            "pid": os.getpid(),
            "updated_at": time.time(),
            "samples_per_second": progress.per_s,
            "tokens_per_second": self._outlook.tokens_per_s,
            "seconds_left": self._outlook.seconds_left,
            "num_graded": self._num_graded,
            "num_correct": self._num_correct,
            "trouble": self._watch.trouble,
        }
        write_json(Path(self._job.ledger).with_name(LIVE), live, sync=False)


def cost(tally: Tally, price: Price) -> float:
    """Return the cost of a tally's tokens, in the price's currency."""
    millions = tally.num_prompt_tokens / 1e6, tally.num_completion_tokens / 1e6
    return millions[0] * price.input_per_million + millions[1] * price.output_per_million


def _maybe_grader(job: SamplingJob) -> contextlib.AbstractContextManager[BackgroundGrader | None]:
    if job.grade_timeout_s is None:
        return contextlib.nullcontext()
    cache = None if job.facts is None else Path(job.facts)
    sandbox = SandboxConfig.model_validate(job.sandbox or {})
    limits = job.grade_timeout_s, job.grade_memory_gib
    return BackgroundGrader(*limits, job.gym_min_score, cache, job.last_number, sandbox)


def make_trace(job: SamplingJob, completion: Completion, sampling: dict[str, Any] | None = None) -> Trace:
    """Return the trace of a completion: its text split into reasoning and answer, with the sampling settings.

    Args:
        job: the sampling job.
        completion: the engine's answer.
        sampling: how it was drawn; default: as the job says.
    """
    text = whole_characters(completion.text)
    split = split_reasoning(text, completion.think_opened)
    return Trace(
        problem_id=completion.key[0],
        sample_index=completion.key[1],
        teacher=job.model_name,
        teacher_revision=job.model_revision,
        text=text,
        reasoning=split.reasoning,
        content=split.content,
        finish_reason=completion.finish_reason,
        num_prompt_tokens=completion.num_prompt_tokens,
        num_completion_tokens=completion.num_completion_tokens,
        seed=sample_seed(job.seed, completion.key),
        sampling=job.sampling if sampling is None else sampling,
        error=completion.error,
    )
