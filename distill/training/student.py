"""The trained student on disk, as vLLM and transformers load it, and a last look at what it does.

Enters: the trained model and its tokenizer. Leaves: `student/` (safetensors, config.json, generation_config.json,
tokenizer, chat template), with LoRA also `adapter/` as peft loads it; each is there whole or not at all, and holds no
pickle. The closing check loads `student/` afresh and lets it answer a few training prompts:

    {"num_prompts": 8, "thinks": 8, "closes": 7, "answers": 7, "stops": 7, "max_new_tokens": 256, …, "warning": null}
"""

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.thinking import THINK_CLOSE, THINK_OPEN, opens_thinking, split_reasoning
from distill.errors import StageError
from distill.models.hub_names import names_folder
from distill.models.tokenizers import Tokenizer, render_prompt
from distill.storage.files import disk_errors, read_json, replace_folder, sync_tree, write_json
from distill.storage.layout import ADAPTER, STUDENT
from distill.training.rows import source_row

if TYPE_CHECKING:
    import torch

MAX_FILE = "5GB"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")

SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 0}
"""How DeepSeek-R1 is sampled; `top_k` 0 is no limit, where transformers would take 50."""

NUM_PROMPTS = 8
MAX_NEW_TOKENS = {"cpu": 256, "cuda": 4_096}


@dataclass(frozen=True, slots=True)
class Base:
    """What the student was made from."""

    name: str
    """As the recipe gives it: a Hub id, or a folder."""
    path: Path
    revision: str | None = None
    """Commit on the Hub; of a folder it says nothing."""


def save_student(
    model: Any, tokenizer: Tokenizer, out_dir: Path, base: Base, weights: Mapping[str, "torch.Tensor"] | None = None
) -> None:
    """Save the student, and with LoRA the adapter before it is merged.

    Args:
        model: the trained model, or peft's around it.
        tokenizer: as it was trained with.
        out_dir: the stage's folder.
        base: what the student was made from; its number format is the saved weights'.
        weights: all weights by name (with LoRA: the adapter's), where the processes hold only shares of them.

    Raises:
        StoreError: the disk is full or not writable.
        StageError: merging gave numbers that are not finite.
    """
    if hasattr(model, "peft_config"):
        save_adapter(model, out_dir, base, weights)
        model, weights = merged(out_dir / ADAPTER, base, plain_config(model)), None
    folder = out_dir / STUDENT
    staging = _staging(folder)
    with disk_errors(staging):
        write_weights(model, staging, base, weights)
        describe(staging, plain_config(model), tokenizer, base)
        _seal(staging, folder)


def save_adapter(model: Any, out_dir: Path, base: Base, weights: Mapping[str, "torch.Tensor"] | None = None) -> None:
    """Save peft's adapter, which names the base by its Hub id.

    Raises:
        StoreError: the disk is full or not writable.
    """
    folder = out_dir / ADAPTER
    staging = _staging(folder)
    for config in model.peft_config.values():
        config.base_model_name_or_path = base.name
        config.revision = None if names_folder(base.name) else base.revision
    with disk_errors(staging):
        # Embeddings never change here; "auto" would ask the Hub whether they have.
        model.save_pretrained(staging, state_dict=weights, save_embedding_layers=False)
        (staging / "README.md").unlink(missing_ok=True)  # a form to fill in, with paths of this machine
        _seal(staging, folder)


def merged(adapter: Path, base: Base, config: Any) -> Any:
    """Base and adapter as one model, added up in float32 on CPU, whatever they were trained in.

    Args:
        adapter: folder that `save_adapter` made.
        base: its weights are read again, as training may hold them quantised or in shares.
        config: the trained model's.

    Raises:
        StageError: the sum is not finite.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(base.path, config=config, dtype=torch.float32, trust_remote_code=False)
    try:
        return PeftModel.from_pretrained(whole, str(adapter)).merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise StageError(
            f"sft: the adapter cannot be merged ({str(error)[:200]}). Lower sft.learning_rate and train again."
        ) from error


def plain_config(model: Any) -> Any:
    """The model's config as it is saved: without quantisation, which only training knew."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.use_cache = True
    return config


def write_weights(model: Any, folder: Path, base: Base, weights: Mapping[str, "torch.Tensor"] | None = None) -> None:
    """Write the weights as safetensors in the base's number format; tied ones once.

    Args:
        model: knows the names under which weights are saved.
        folder: is made.
        base: what the student was made from.
        weights: all weights by name, where the model holds only shares of them.
    """
    dtype = base_dtype(base)
    model.generation_config = generation_config(base, model.config.eos_token_id, model.config.pad_token_id)
    model.save_pretrained(folder, state_dict=_cast(weights or model.state_dict(), dtype), max_shard_size=MAX_FILE)


def describe(folder: Path, config: Any, tokenizer: Tokenizer, base: Base) -> None:
    """Write all that stands beside the weights: config, generation config, tokenizer and chat template."""
    config = copy.deepcopy(config)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    dtype = base_dtype(base)
    if dtype is not None:
        config.dtype = dtype
    config.save_pretrained(folder)
    generation_config(base, tokenizer.eos_token_id, tokenizer.pad_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _settle_tokenizer(folder / "tokenizer_config.json")


def generation_config(base: Base, stop_token_id: int, pad_token_id: int | None) -> Any:
    """How the student answers unless told otherwise: R1's sampling, and every token that ends its text.

    The trained stop token comes first; the base's own ends of text follow, as a student that falls back into the
    base's ways must stop too.
    """
    from transformers import AutoConfig, GenerationConfig

    own = AutoConfig.from_pretrained(base.path, trust_remote_code=False).get_text_config()
    listed = read_json(base.path / "generation_config.json") or {}
    ends = [stop_token_id]
    for found in (listed.get("eos_token_id"), getattr(own, "eos_token_id", None)):
        ends += [found] if isinstance(found, int) else found or []
    ends = list(dict.fromkeys(ends))
    return GenerationConfig(
        bos_token_id=listed.get("bos_token_id", getattr(own, "bos_token_id", None)),
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=pad_token_id,
        **SAMPLING,
    )


def base_dtype(base: Base) -> Any:
    """The number format of the base's weights (a torch.dtype), or `None` where its config does not tell."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base.path, trust_remote_code=False)
    return config.dtype or config.get_text_config().dtype


def _cast(weights: Mapping[str, "torch.Tensor"], dtype: Any) -> dict[str, "torch.Tensor"]:
    """The weights on CPU in `dtype`; those that share their memory still do, so that they are seen to be tied."""
    done: dict[tuple[Any, ...], torch.Tensor] = {}
    cast = {}
    for name, tensor in weights.items():
        same = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if same not in done:
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            done[same] = tensor.detach().to(device="cpu", dtype=wanted)
        cast[name] = done[same]
    return cast


def _staging(folder: Path) -> Path:
    staging = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    return staging


def _seal(staging: Path, folder: Path) -> None:
    """Put a finished folder in its place.

    Raises:
        StageError: something wrote a pickle into it.
    """
    pickles = [path.name for path in staging.rglob("*") if path.suffix in PICKLES]
    if pickles:
        raise StageError(
            f"sft: {', '.join(pickles)} was about to be saved with the student; pickles may "
            "run code. Take a student whose weights are safetensors."
        )
    sync_tree(staging)
    replace_folder(staging, folder)


def _settle_tokenizer(tokenizer_config: Path) -> None:
    """Pad on the left, as generation needs, and forget how the tokenizer was loaded: paths are nobody's business."""
    settings = read_json(tokenizer_config)
    for key in ("name_or_path", "is_local", "local_files_only"):
        settings.pop(key, None)
    write_json(tokenizer_config, {**settings, "padding_side": "left"})


# --- the closing check ---


@dataclass(frozen=True, slots=True)
class StudentCheck:
    """What the closing check is told."""

    student: str
    """Folder of the saved student."""
    kept: str
    """Folder of the kept rows."""
    num_rows: int
    """Rows in it."""
    typical_tokens: int
    """Length of the longer rows (the 95th percentile), in tokens: so much the student is given to answer."""
    seed: int


def check_student(task: StudentCheck) -> dict[str, Any]:
    """Load the saved student as a stranger would and let it answer a few of the prompts that it was trained on.

    Returns:
        num_prompts; of these, how many answers think (open a thought), close it, answer after it, and stop by
        themselves; max_new_tokens; num_limited (cut off there); example; warning (`None` where all is as expected).

    Raises:
        StageError: it cannot be loaded, or gives numbers that are not finite.
    """
    import torch

    folder = Path(task.student)
    tokenizer, model = _load_afresh(folder)
    numbers = {round(i * (task.num_rows - 1) / max(1, NUM_PROMPTS - 1)) for i in range(NUM_PROMPTS)}
    rows = [source_row(Path(task.kept), number) for number in sorted(numbers)]
    prompts = [render_prompt(tokenizer, row.prompt) for row in rows]
    limit = min(max(16, task.typical_tokens), MAX_NEW_TOKENS[model.device.type])
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(task.seed)
        texts, stopped = _answers(model, tokenizer, prompts, limit)
    seen = _count(prompts, texts)
    expects_thought = any(THINK_CLOSE in row.completion[-1]["content"] for row in rows)
    result = {
        "num_prompts": len(rows),
        **seen,
        "stops": sum(stopped),
        "num_limited": len(rows) - sum(stopped),
        "max_new_tokens": limit,
        "example": {"row": rows[0].name, "prompt": prompts[0], "text": texts[0]},
    }
    return {**result, "warning": _warning(result, expects_thought, could_end=limit >= task.typical_tokens)}


def _load_afresh(folder: Path) -> tuple[Tokenizer, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_gpu = torch.cuda.is_available()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, padding_side="left", trust_remote_code=False
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype="auto" if on_gpu else torch.float32,
            device_map="auto" if on_gpu else None,
        )
    except Exception as error:  # whatever stops it here stops every user
        raise StageError(
            f"{folder}: the saved student cannot be loaded ({str(error)[:300]}). If it is "
            "damaged, move the sft folder away and train again with `distill sft`."
        ) from error
    if tokenizer.pad_token is None:  # some bases have none; attention leaves padding out whatever it is
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model.eval()


def _answers(model: Any, tokenizer: Tokenizer, prompts: Sequence[str], limit: int) -> tuple[list[str], list[bool]]:
    """What the student says to each prompt, and whether it stopped by itself."""
    import torch

    batch = tokenizer(list(prompts), add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
    # Padding's own positions may hold anything; the last one is a real token everywhere, as padding is on the left.
    if not torch.isfinite(model(**batch, logits_to_keep=1).logits).all():
        raise StageError(
            "sft: the saved student gives numbers that are not finite. Lower sft.learning_rate and train again."
        )
    ids = model.generate(**batch, max_new_tokens=limit)[:, batch["input_ids"].shape[1] :]
    ends = model.generation_config.eos_token_id
    ends = torch.tensor([ends] if isinstance(ends, int) else ends, device=ids.device)
    stopped = torch.isin(ids, ends).any(dim=1).tolist()
    texts = []
    for row in ids:
        places = torch.isin(row, ends).nonzero()
        texts.append(tokenizer.decode(row[: places[0]] if len(places) else row))
    return texts, stopped


def _count(prompts: Sequence[str], texts: Sequence[str]) -> dict[str, int]:
    splits = [split_reasoning(text, opens_thinking(prompt)) for prompt, text in zip(prompts, texts, strict=True)]
    thinks = [opens_thinking(prompt) or THINK_OPEN in text for prompt, text in zip(prompts, texts, strict=True)]
    return {
        "thinks": sum(thinks),
        "closes": sum(split.state == "closed" for split in splits),
        "answers": sum(split.state != "unclosed" and bool(split.content) for split in splits),
    }


def _warning(result: Mapping[str, Any], expects_thought: bool, could_end: bool) -> str | None:
    """What the student was to have learnt and does not show in a single answer.

    Args:
        result: what was counted.
        expects_thought: whether it was trained to think.
        could_end: whether answers of the usual length were let come to their end.
    """
    missing = []
    if expects_thought and not result["thinks"]:
        missing.append(f"open a thought with {THINK_OPEN}")
    elif expects_thought and could_end and not result["closes"]:
        missing.append(f"close its thought with {THINK_CLOSE}")
    elif could_end and not result["answers"]:
        missing.append("answer")
    if could_end and not result["stops"]:
        missing.append("stop by itself")
    if not missing:
        return None
    return (
        f"asked {result['num_prompts']} of its training prompts, the student did not once {' or '.join(missing)} "
        f"within {result['max_new_tokens']} tokens. It may need more rows, more epochs or a higher sft.learning_rate."
    )
