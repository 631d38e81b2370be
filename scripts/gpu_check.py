"""What a GPU makes of distill, in at most nine minutes, with what is installed: nothing is fetched.

Needs a machine with an NVIDIA GPU; `--device cpu` tries all of it without one, with a tiny model. Writes to the folder
of `--out`: gpu_check.json (machine, versions, each part's status, seconds and figures), gpu_check.md (the same as a
table for docs/tried.md) and gpu_check.log (what the parts printed).

The parts stand in order of importance. Each runs in a process of its own with a time limit, so that none takes another
with it; what no longer fits into the time is skipped, and says so. The files are written anew after each part.

    python scripts/gpu_check.py [--budget-minutes 9] [--model NAME_OR_FOLDER] [--only memory-full tests] [--out DIR]

Exit code 0 if no part failed, 1 if one did, 130 after Ctrl-C, which keeps what is there.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
JOBS = Path(__file__).with_name("gpu_parts.py")
BUDGET_MINUTES = 9.0
END_S = 3.0
"""Of the budget, for ending a part and writing the files."""
LOG_BYTES = 100_000
"""Of each part's output, its end is kept up to this size."""
NOTHING_ELSE_WORKS_WITHOUT = ("machine", "model")

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to find out."""

    name: str
    job: str
    """Function of gpu_parts.py that does it."""
    limit_s: float
    least_s: float
    """With less time left it is not begun."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the function."""
    modules: tuple[str, ...] = ()
    """Packages without which it cannot be done, beside those that an import will ask for."""


@dataclass(slots=True)
class Outcome:
    """What became of a part."""

    name: str
    status: Status
    seconds: float = 0.0
    summary: str = ""
    """Its result in a sentence."""
    reason: str = ""
    """Why it failed or was skipped."""
    figures: dict[str, Any] = field(default_factory=dict)


def _memory(name: str, attention: str, kernels: bool, *modules: str) -> tuple[Part, Part]:
    """Two parts: training all weights, and LoRA."""
    full, lora = (
        Part(
            f"memory-{method}{name}",
            "memory",
            120,
            30,
            {"method": method, "compute": {"attention": attention, "kernels": kernels}},
            modules,
        )
        for method in ("full", "lora")
    )
    return full, lora


PARTS = (
    Part("machine", "machine", 90, 5),
    Part("model", "model", 90, 10),
    *_memory("", "sdpa", False),
    Part("engine-vllm", "sample", 180, 60, {"engine": "vllm"}, ("vllm",)),
    Part("engine-transformers", "sample", 120, 30, {"engine": "transformers"}),
    Part("tests", "tests", 240, 60),
    Part("seeds", "seeds", 120, 30),
    Part("sft-gpu-8k", "sft_gpu", 150, 60, {"length": 8_192}),
    *_memory("-flash", "flash_attention_2", False, "flash_attn"),
    *_memory("-liger", "sdpa", True, "liger_kernel"),
    Part("sft-gpu-16k", "sft_gpu", 200, 80, {"length": 16_384}),
)


class Check:
    """All parts, one after the other, within a budget."""

    def __init__(self, parts: Sequence[Part], settings: dict[str, Any], out: Path, budget_s: float, jobs: Path) -> None:
        """Begin the clock.

        Args:
            parts: in order of importance.
            settings: what each part's process is told beside its own options.
            out: folder for the results.
            budget_s: time for all of it, in seconds.
            jobs: the script that does a part: `jobs SETTINGS RESULT`, both JSON files.
        """
        self._parts, self._settings, self.out, self._budget_s, self._jobs = parts, settings, out, budget_s, jobs
        self._began = time.monotonic()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.outcomes: list[Outcome] = []

    @property
    def exit_code(self) -> int:
        return int(any(outcome.status == "failed" for outcome in self.outcomes))

    def run(self) -> None:
        """Do one part after the other; what is known is on the disk after each.

        Raises:
            KeyboardInterrupt: as it came, once the results are written.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "gpu_check.log").write_text("")
        scratch = Path(tempfile.mkdtemp(prefix="gpu-check-"))
        self._settings["scratch"] = str(scratch)
        try:
            for part in self._parts:
                self._take(self._why_not(part) or self._do(part, scratch))
        except KeyboardInterrupt:
            for part in self._parts[len(self.outcomes) :]:
                self._take(Outcome(part.name, "skipped", reason="stopped before it began"))
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _take(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        took = f"{outcome.status} ({outcome.seconds:.0f} s)"
        print(f"[{self._elapsed_s():4.0f} s] {outcome.name}: {took} {outcome.reason or outcome.summary}", flush=True)
        self.write()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _why_not(self, part: Part) -> Outcome | None:
        """Why a part is not even begun."""
        for outcome in self.outcomes:
            if outcome.name in NOTHING_ELSE_WORKS_WITHOUT and outcome.status != "ok":
                return Outcome(part.name, "skipped", reason=f"{outcome.name}: {outcome.reason}")
        left_s = self._left_s()
        if left_s < part.least_s:
            left = f"{max(left_s, 0):.0f} s of {self._budget_s:.0f} s"
            return Outcome(part.name, "skipped", reason=f"no time left: {left}, and it needs {part.least_s:.0f} s")
        return None

    def _left_s(self) -> float:
        return self._budget_s - END_S - self._elapsed_s()

    def _do(self, part: Part, scratch: Path) -> Outcome:
        """A part in a process of its own."""
        limit_s = min(part.limit_s, self._left_s())
        folder = scratch / part.name
        folder.mkdir()
        told, result, printed = folder / "settings.json", folder / "result.json", folder / "log"
        about = {"part": part.name, "job": part.job, "options": dict(part.options), "modules": part.modules}
        told.write_text(json.dumps({**self._settings, **about, "folder": str(folder)}))
        began = time.monotonic()
        with printed.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, str(self._jobs), str(told), str(result)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=folder,
                env=self._environment(part),
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
            except KeyboardInterrupt:
                outcome = self._outcome(part, result, began)
                outcome.status, outcome.reason = "skipped", f"stopped after {outcome.seconds:.0f} s"
                self._take(outcome)
                raise
            finally:
                end_session(process.pid)
                process.wait()
                self._keep_log(part, printed)
        outcome = self._outcome(part, result, began)
        if code is None and limit_s < part.limit_s:
            outcome.status, outcome.reason = "skipped", f"no time left: stopped after {limit_s:.0f} s"
        elif code is None:
            outcome.status, outcome.reason = "failed", f"took longer than {limit_s:.0f} s"
        elif code:
            outcome.status, outcome.reason = "failed", f"{_ending(code)}; last words: {_last_line(printed)}"
        if outcome.status == "ok":
            self._settings.update(outcome.figures.pop("for_other_parts", {}))
        if part.name not in NOTHING_ELSE_WORKS_WITHOUT:  # which leaves a model
            shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _outcome(self, part: Part, result: Path, began: float) -> Outcome:
        """What a part has said so far."""
        found = json.loads(result.read_text()) if result.exists() else {}
        outcome = Outcome(part.name, found.get("status", "failed"), time.monotonic() - began)
        outcome.figures, outcome.summary = found.get("figures", {}), found.get("summary", "")
        outcome.reason = found.get("reason", "" if found else "it said nothing")
        return outcome

    def _environment(self, part: Part) -> dict[str, str]:
        ours = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "DISTILL_QUIET": "1", "TOKENIZERS_PARALLELISM": "false"}
        ours["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        if self._settings["device"] == "cpu":
            ours["CUDA_VISIBLE_DEVICES"], ours["DISTILL_GPU_TESTS"] = "", "cpu"
        elif part.job != "tests":  # which have something for several GPUs
            ours["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        return ours

    def _keep_log(self, part: Part, printed: Path) -> None:
        text = printed.read_bytes()[-LOG_BYTES:].decode(errors="replace")
        with (self.out / "gpu_check.log").open("a") as stream:
            stream.write(f"=== {part.name}\n{text}\n")

    def write(self) -> None:
        """The results as they are now."""
        machine = next((outcome.figures for outcome in self.outcomes if outcome.name == "machine"), {})
        report = {
            "schema_version": 1,
            "started_at": self._started_at,
            "device": self._settings["device"],
            "budget_s": self._budget_s,
            "seconds": round(self._elapsed_s(), 1),
            "ok": not self.exit_code,
            "machine": machine,
            "parts": [asdict(outcome) for outcome in self.outcomes],
        }
        staged = self.out / ".gpu_check.json"
        staged.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        staged.replace(self.out / "gpu_check.json")
        (self.out / "gpu_check.md").write_text(table(machine, self.outcomes))


def table(machine: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The results as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    lines = [f"{machine.get('gpu') or machine.get('cpu') or 'Unknown machine'}; {versions}", ""]
    lines += ["| part | status | seconds | result |", "|---|---|---|---|"]
    for outcome in outcomes:
        said = "; ".join(filter(None, (outcome.reason, outcome.summary))).replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {outcome.name} | {outcome.status} | {outcome.seconds:.0f} | {said} |")
    return "\n".join(lines) + "\n"


def end_session(session: int) -> None:
    """Kill every process of a session: a part's children may have groups of their own, and hold the GPU's memory."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "none")


def _interrupted(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the parts that are asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: try all of it, as far as it goes")
    parser.add_argument("--model", help="alias, Hub id or folder; left out: random weights of Qwen2.5-0.5B's shape")
    parser.add_argument("--budget-minutes", type=float, default=BUDGET_MINUTES, help="time for all of it")
    parser.add_argument("--only", nargs="+", metavar="PART", help=f"of {', '.join(part.name for part in PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for the results")
    options = parser.parse_args()
    if unknown := sorted({*(options.only or ())} - {part.name for part in PARTS}):
        parser.error(f"--only: no part {', '.join(unknown)}")
    wanted = {*NOTHING_ELSE_WORKS_WITHOUT, *(options.only or (part.name for part in PARTS))}
    signal.signal(signal.SIGTERM, _interrupted)
    is_folder = options.model is not None and Path(options.model).is_dir()
    settings = {
        "device": options.device,
        "model": str(Path(options.model).resolve()) if is_folder else options.model,
    }
    parts = [part for part in PARTS if part.name in wanted]
    check = Check(parts, settings, options.out.resolve(), 60 * options.budget_minutes, JOBS)
    try:
        check.run()
        code = check.exit_code
    except KeyboardInterrupt:
        code = 130
    print(f"\n{(check.out / 'gpu_check.md').read_text()}\nWritten to {check.out}: gpu_check.json, .md and .log")
    return code


if __name__ == "__main__":
    sys.exit(main())
