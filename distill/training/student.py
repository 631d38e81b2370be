import shutil
from pathlib import Path
from typing import Any
from distill.store import disk_errors, replace_folder
from distill.tokenizers import Tokenizer
def save_student(model: Any, tokenizer: Tokenizer, out_dir: Path, dtype: Any) -> None:
    """Save what vLLM and transformers load: merged weights, tokenizer, template, and the right stop token.

    `student/` appears whole or not at all. With LoRA the adapter alone goes to `adapter/`.
    """
    staging = out_dir / "student.partial"
    shutil.rmtree(staging, ignore_errors=True)
    with disk_errors(staging):
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(out_dir / "adapter")
            model = model.merge_and_unload()
        if dtype is not None:
            model = model.to(dtype)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        model.config.eos_token_id = tokenizer.eos_token_id
        model.config.pad_token_id = tokenizer.pad_token_id
        model.config.use_cache = True
        tokenizer.padding_side = "left"
        tokenizer.save_pretrained(staging)
        model.save_pretrained(staging)
    replace_folder(staging, out_dir / "student")


