"""Sampling, training and memory as `gpu_check.py` measures them, through distill's own functions.

Each function takes the part's `Report`, notes figures in it, and returns its result in a sentence.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any, Literal

from gpu_report import GIB, Report, nvidia_smi

SEED = 42


def _model(path: str) -> Any:
    from distill.models.hub import Model

    return Model(Path(path).name, Path(path), "0")


# --- sampling


def sample(report: Report, engine: Literal["vllm", "transformers"]) -> str:
    """Tokens a second, at the size of batch that the engine picks and at a larger one."""
    from training_rows import worked_sums

    from distill.engines.base import EngineSpec
    from distill.engines.start import start_engine
    from distill.recipe.sampling import Sampling, SamplingCompute

    size = report.size
    prompts = [row["prompt"] for row in worked_sums(max(num for _, num in size.batches), [8] * 1_000)]
    said = []
    # vLLM sets up its process for one engine.
    for at_once, num in size.batches[:1] if engine == "vllm" else size.batches:
        spec = EngineSpec(
            model_path=Path(report.settings["model_path"]),
            model_name="model",
            sampling=Sampling(temperature=0.6, top_p=0.95, max_tokens=size.sampled_tokens),
            compute=SamplingCompute(engine=engine, max_num_seqs=at_once),
            chat_format="chatml",
            longest_messages=[max(prompts, key=lambda prompt: len(prompt[0]["content"]))],
        )
        began = time.perf_counter()
        running = start_engine(spec)
        load_s = time.perf_counter() - began
        _draw(running, prompts[:4], "warm")
        began = time.perf_counter()
        done = _draw(running, prompts[:num], f"batch {at_once}")
        seconds = time.perf_counter() - began
        failed = [completion.error for completion in done if completion.finish_reason == "error"]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(done)} samples failed: {failed[0]}")
        speed = sum(completion.num_completion_tokens for completion in done) / seconds
        at_once = at_once or running.max_in_flight // 2
        about = {"tokens_per_second": speed, "num_requests": num, "load_s": load_s, "settings": running.settings}
        report.note(**{f"at_once_{at_once}": {**about, "peak_gib": _peak_gib(), "text": done[0].text[:200]}})
        said.append(f"{speed:,.0f} tokens/s at {at_once} requests")
        running.close()
        del running
    return "; ".join(said)


def _draw(engine: Any, prompts: list[Any], name: str) -> list[Any]:
    """The completions of all prompts."""
    from distill.engines.base import Request

    waiting = [Request((f"{name} {number}", 0), prompt, number) for number, prompt in enumerate(prompts)]
    waiting.reverse()
    done: list[Any] = []
    while waiting or engine.num_in_flight:
        while waiting and engine.num_in_flight < engine.max_in_flight:
            refused = engine.submit(waiting.pop())
            done += [] if refused is None else [refused]
        done += engine.step()
    return done


def _peak_gib() -> float | None:
    import torch

    return torch.cuda.max_memory_reserved() / GIB if torch.cuda.is_available() else None


# --- training


def memory(report: Report, method: str, compute: dict[str, Any]) -> str:
    """What `distill sft --check` estimates for a training against what it takes."""
    from training_rows import long_rows

    from distill.estimates.training_memory import CUDA_CONTEXT_GIB, FRAGMENTATION
    from distill.recipe.sft import SftConfig
    from distill.runs.sft_check import training_needs
    from distill.training.rows import row_lengths

    size = report.size
    here = compute if report.on_gpu else {}
    others_gib = float(nvidia_smi("memory.used") or 0) / 1024  # before this process takes any
    before = _resident_gib()
    job, result, rows = _train(
        report,
        report.settings["model_path"],
        long_rows(size.num_rows, size.row_tokens - size.row_tokens // 8),
        "train",
        method=method,
        max_length=size.row_tokens,
        compute={"per_device_batch_size": size.per_device, **here},
    )
    taken = _taken(others_gib) if report.on_gpu else {"resident_gib": _resident_gib(peak=True) - before}
    report.note(**taken, device=result["device"], losses=_losses(result))
    # The first step picks kernels.
    speeds = [json.loads(line)["tokens_per_second"] for line in (report.folder / "train/metrics.jsonl").open()][1:]
    speed = statistics.median(speeds)
    model_config = _model(report.settings["model_path"]).config
    needs = training_needs(job, SftConfig.model_validate(job.config), model_config, row_lengths(rows))
    report.note(tokens_per_second=speed, fullest_pass=needs.fullest_pass)
    if needs.memory is None:
        return f"{speed:,.0f} tokens/s; no estimate for a model of this kind"
    estimate = needs.memory.total_gib
    report.note(estimate_gib=estimate, estimate_parts_gib=needs.memory.parts, estimate_moment=needs.memory.moment)
    if not report.on_gpu:
        return f"{speed:,.0f} tokens/s; estimate {estimate:.2f} GiB (on a CPU see benchmarks/memory_estimate.py)"
    tensors = (estimate - CUDA_CONTEXT_GIB) / (1 + FRAGMENTATION)
    ratios = estimate / taken["taken_gib"], tensors / taken["allocated_gib"]
    report.note(ratio=ratios[0], ratio_of_tensors=ratios[1])
    return (
        f"estimate {estimate:.2f} GiB over {taken['taken_gib']:.2f} taken: {ratios[0]:.2f} (tensors alone "
        f"{ratios[1]:.2f}); {speed:,.0f} tokens/s"
    )


def _taken(others_gib: float) -> dict[str, float]:
    """What this process took of the GPU: its allocator's highest, and what lies beside that."""
    import torch

    free, total = torch.cuda.mem_get_info()
    context = (total - free - torch.cuda.memory_reserved()) / GIB - others_gib
    reserved = torch.cuda.max_memory_reserved() / GIB
    return {
        "allocated_gib": torch.cuda.max_memory_allocated() / GIB,
        "reserved_gib": reserved,
        "context_gib": context,
        "taken_gib": reserved + context,
    }


def _resident_gib(peak: bool = False) -> float:
    kind = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 2**20


def seeds(report: Report) -> str:
    """The same seed twice, and another one."""
    from training_rows import long_rows

    histories = []
    for number, seed in enumerate((SEED, SEED, SEED + 1)):
        rows = long_rows(16, report.size.row_tokens // 2)
        path = report.settings["small_path"]
        _, result, _ = _train(report, path, rows, f"run-{number}", seed=seed, max_length=report.size.row_tokens)
        histories.append(_losses(result))
        report.note(losses=histories)
    once, again, other = histories
    apart = max(abs(a - b) for a, b in zip(once, again, strict=True))
    report.note(same_seed_apart=apart, num_steps=len(once))
    if once == other:
        raise RuntimeError("two seeds gave the same losses, so the seed has no effect")
    same = "equal losses" if apart == 0 else f"losses up to {apart:.2g} apart"
    return f"the same seed twice: {same} in {len(once)} steps; another seed differs"


def _train(
    report: Report, path: str, rows: list[Any], name: str, seed: int = SEED, **sft: Any
) -> tuple[Any, dict[str, Any], Any]:
    """Train as `distill sft` does, in this process; the job, what it returned, the token rows."""
    from training_rows import train_job, write_rows

    from distill.models.tokenizers import load_tokenizer
    from distill.training.job import TOKENS
    from distill.training.rows import token_rows
    from distill.training.run import train

    found = _model(path)
    folder = report.folder / name
    folder.mkdir()
    compute = {"tracking": [], "num_processes": 1, "save_every_steps": 1_000_000, **sft.pop("compute", {})}
    settings = {"batch_size": report.size.batch_size, "epochs": 1, "learning_rate": 1e-4, **sft}
    job = train_job(found, write_rows(rows, folder / "rows"), folder, seed, 1, **settings, compute=compute)
    result = train(job)
    return job, result, token_rows(folder / "rows", load_tokenizer(found.path, None), folder / TOKENS)


def _losses(result: dict[str, Any]) -> list[float]:
    return [entry["loss"] for entry in result["history"]]
