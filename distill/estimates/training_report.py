"""Output of `distill students` and `distill sft --plan`: JSON-ready dicts, and tables that fit into 80 columns."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from distill.errors import ModelError
from distill.estimates.training_layouts import Choice, best_layout, fits, setting_of, smallest_layout
from distill.estimates.training_memory import PARTS, Method, Setting, Sharding, plan
from distill.models.rope import rope_of
from distill.models.shapes import ModelShape, shape_from_config
from distill.models.students import LORA_LEARNING_RATE, R1_CONTEXT, STUDENTS, Student, find_student
from distill.recipe.sft import SftConfig
from distill.storage.files import read_json

if TYPE_CHECKING:
    from rich.table import Table

METHODS: dict[Method, str] = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}
SHARDINGS: dict[Sharding, str] = {"none": "none", "fsdp": "FSDP2", "zero3": "ZeRO-3"}

TABLE_GPUS = (1, 8, 64)
"""Numbers of GPUs for which the student table has layouts."""
TABLE_GPU_GIB = 80.0
R1_BATCH_SIZE = 64
FOLDING = ("base", "layout")
"""Columns that may wrap."""

DEFAULT_GPUS, DEFAULT_GPU_GIB = 8, 80.0
"""Defaults of a plan on a machine without GPUs."""


def student_entries() -> list[dict[str, Any]]:
    """Return the student table, with layouts for R1's setting: rows of up to 32,768 tokens, 64 per step."""
    return [_student_entry(student) for student in STUDENTS.values()]


def _student_entry(student: Student) -> dict[str, Any]:
    assert student.shape is not None, student.alias
    row_tokens = min(R1_CONTEXT, student.longest_context or R1_CONTEXT)
    return {
        "alias": student.alias,
        "base": student.hub_id,
        "license": student.license,
        "num_parameters": student.shape.num_parameters,
        "context": student.context,
        "trained_context": student.longest_context,
        "rope_theta": student.rope_theta,
        "template": student.chat_format if student.replace_template else "own",
        "template_if_none": student.chat_format,
        "stop_token": student.stop_token,
        "learning_rate": {"full": student.learning_rate, "lora": LORA_LEARNING_RATE},
        "r1_scores": asdict(student.r1_scores) if student.r1_scores else None,
        "layouts": {
            "row_tokens": row_tokens,
            "batch_size": R1_BATCH_SIZE,
            "gpu_gib": TABLE_GPU_GIB,
            **{
                method: {
                    str(num_gpus): _choice_entry(
                        best_layout(
                            student.shape,
                            Setting(method=method, row_tokens=row_tokens),
                            R1_BATCH_SIZE,
                            num_gpus,
                            TABLE_GPU_GIB,
                        )
                    )
                    for num_gpus in TABLE_GPUS
                }
                for method in METHODS
                if method != "qlora"
            },
        },
    }


def _choice_entry(choice: Choice) -> dict[str, Any]:
    return {
        "layout": choice.describe(),
        "num_gpus": choice.num_gpus,
        "compute": choice.recipe_keys(),
        "accumulation": choice.setting.accumulation,
        "fits": choice.fits,
        "gib_per_gpu": round(choice.estimate.total_gib, 2),
        "host_gib_per_gpu": round(choice.estimate.host_gib, 2),
        "parts_gib": {part: round(gib, 2) for part, gib in choice.estimate.parts.items()},
    }


def student_tables(entries: Sequence[dict[str, Any]]) -> list["Table"]:
    """Return the entries of `student_entries` as tables."""
    return [_base_table(entries), _training_table(entries), _score_table(entries), _layout_table(entries)]


def _base_table(entries: Sequence[dict[str, Any]]) -> "Table":
    table = _table("Students", {"alias": "left", "base": "left", "size": "right", "context": "right"})
    for entry in entries:
        context = f"{entry['context']:,}"
        if entry["trained_context"] != entry["context"]:
            context += f" -> {entry['trained_context']:,}"
        table.add_row(entry["alias"], entry["base"], _size(entry["num_parameters"]), context)
    table.caption = "->: trained on longer rows, with another rotary base (theta)"
    return table


def _training_table(entries: Sequence[dict[str, Any]]) -> "Table":
    columns = {"alias": "left", "template": "left", "stop token": "left", "full": "right", "LoRA": "right"}
    table = _table("Chat template, peak learning rates, licence of the base", {**columns, "licence": "left"})
    for entry in entries:
        rates = [f"{rate:.0e}".replace("e-0", "e-") for rate in entry["learning_rate"].values()]
        template = entry["template"] if entry["template"] != "own" else f"its own, else {entry['template_if_none']}"
        table.add_row(entry["alias"], template, entry["stop_token"], *rates, entry["license"])
    return table


def _score_table(entries: Sequence[dict[str, Any]]) -> "Table":
    columns = ("AIME24", "cons@64", "MATH-500", "GPQA-D", "LiveCode", "Codeforces")
    table = _table("Scores of R1's students of these bases", {"alias": "left", **dict.fromkeys(columns, "right")})
    for entry in entries:
        if entry["r1_scores"]:
            table.add_row(entry["alias"], *(str(score) for score in entry["r1_scores"].values()))
    return table


def _layout_table(entries: Sequence[dict[str, Any]]) -> "Table":
    title = f"Layouts for {R1_BATCH_SIZE} rows a step on GPUs of {TABLE_GPU_GIB:.0f} GiB"
    columns = dict.fromkeys((_gpus(number) for number in TABLE_GPUS), "left")
    table = _table(title, {"alias": "left", "method": "left", **columns})
    for entry in entries:
        layouts = entry["layouts"]
        for method in ("full", "lora"):
            first = method == "full"
            table.add_row(
                entry["alias"] if first else "",
                METHODS[method],
                *(_brief(layouts[method][str(num_gpus)]) for num_gpus in TABLE_GPUS),
            )
    table.caption = (
        f"rows (of up to {R1_CONTEXT:,} tokens, or the context) x passes of each GPU;\nfsdp: weights sharded; "
        "2/row: GPUs that share a row; ram: shards in the machine's memory"
    )
    return table


def _brief(choice: dict[str, Any]) -> str:
    if not choice["fits"]:
        return "too small"
    compute = choice["compute"]
    words = [compute["sharding"]] if compute["sharding"] != "none" else []
    words.append(f"{compute['per_device_batch_size']}x{choice['accumulation']}")
    words += [f"{compute['sequence_parallel']}/row"] if compute["sequence_parallel"] > 1 else []
    return " ".join(words + (["ram"] if compute["cpu_offload"] else []))


def plan_entry(name: str, config: SftConfig, num_gpus: int, gpu_gib: float) -> dict[str, Any]:
    """Return memory and layouts of one student.

    Args:
        name: an alias, a local folder, or a Hub id.
        config: `sft:`; of its compute section only the fields of `Setting` are used.
        num_gpus: number of GPUs.
        gpu_gib: memory of one, in GiB.

    Raises:
        ModelError: the model's config.json cannot be found, or its architecture is not supported.
    """
    student = find_student(name)
    shape, context = known_shape(student)
    row_tokens = min(config.max_length, context or config.max_length)
    setting = setting_of(config, row_tokens, num_gpus)
    return {
        "student": student.alias,
        "num_parameters": shape.num_parameters,
        "num_gpus": num_gpus,
        "gpu_gib": gpu_gib,
        "row_tokens": row_tokens,
        "rows_per_pass": setting.rows,
        "batch_size": config.batch_size,
        "memory": [
            _memory_entry(shape, replace(setting, method=method, sharding=sharding), gpu_gib)
            for method in METHODS
            for sharding in SHARDINGS
            if (method, sharding) != ("qlora", "zero3")  # ZeRO-3 cannot shard 4-bit weights
        ],
        "layouts": [
            _layouts_entry(shape, replace(setting, method=method), config.batch_size, num_gpus, gpu_gib)
            for method in METHODS
        ],
    }


def plan_memory(
    student: str, num_gpus: int = DEFAULT_GPUS, gpu_gib: float = DEFAULT_GPU_GIB, sft: SftConfig | None = None
) -> dict[str, Any]:
    """Return memory and layouts for training a student, as in `distill sft --plan --json` (docs/json.md).

    Args:
        student: an alias, a local folder, or a Hub id.
        num_gpus: number of GPUs.
        gpu_gib: memory of one, in GiB.
        sft: `sft:` of a recipe; left out: the defaults.

    Raises:
        ModelError: the model's config.json cannot be found, or its architecture is not supported.
    """
    return plan_entry(student, sft or SftConfig(), num_gpus, gpu_gib)


def known_shape(student: Student) -> tuple[ModelShape, int | None]:
    """Return a student's shape and longest context, from the table or its `config.json`, without its weights.

    Raises:
        ModelError: the student cannot be found, or its architecture is not supported.
    """
    if student.shape is not None:
        return student.shape, student.longest_context
    config = _config(student.hub_id)
    return shape_from_config(config, student.alias), rope_of(config).context


def _config(name: str) -> dict[str, Any]:
    from pathlib import Path

    file = Path(name).expanduser() / "config.json"
    if not file.parent.is_dir():
        file = Path(_fetched(name))
    config: dict[str, Any] | None = read_json(file)
    if config is None:
        raise ModelError(
            f"{name}: has no config.json, so it is not a model. Give a model's folder, a Hub id or an alias."
        )
    return config


def _fetched(name: str) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(name, "config.json"))
    except (OSError, ValueError) as error:  # all errors of the Hub client are among these
        raise ModelError(
            f"{name}: its config.json is not in the local cache and cannot be fetched ({type(error).__name__}). Give "
            f"an alias ({', '.join(STUDENTS)}), a local folder, or fetch it with `hf download {name} config.json`."
        ) from None


def _memory_entry(shape: ModelShape, setting: Setting, gpu_gib: float) -> dict[str, Any]:
    estimate = plan(shape, setting)
    return {
        "method": setting.method,
        "sharding": setting.sharding,
        **{part: round(gib, 2) for part, gib in estimate.parts.items()},
        "total": round(estimate.total_gib, 2),
        "fits": fits(estimate, gpu_gib),
        "highest_at": estimate.moment,
    }


def _layouts_entry(
    shape: ModelShape, setting: Setting, batch_size: int, num_gpus: int, gpu_gib: float
) -> dict[str, Any]:
    smallest = smallest_layout(shape, setting, batch_size, gpu_gib)
    return {
        "method": setting.method,
        "here": _choice_entry(best_layout(shape, setting, batch_size, num_gpus, gpu_gib)),
        "smallest": _choice_entry(smallest) if smallest else None,
    }


def plan_tables(entry: dict[str, Any]) -> list["Table"]:
    """Return a `plan_entry` as tables."""
    return [_memory_table(entry), _fitting_table(entry)]


def _memory_table(entry: dict[str, Any]) -> "Table":
    rows = entry["rows_per_pass"]
    title = (
        f"{entry['student']} ({_size(entry['num_parameters'])}) on {_gpus(entry['num_gpus'])} of "
        f"{entry['gpu_gib']:g} GiB: GiB a GPU\n{rows} row{'s' if rows > 1 else ''} a pass, of up to "
        f"{entry['row_tokens']:,} tokens"
    )
    short = {"gradients": "grads", "optimiser": "optim", "activations": "activ"}
    columns = {"method": "left", "shared by": "left", **{short.get(part, part): "right" for part in PARTS}}
    table = _table(title, {**columns, "total": "right", "fits": "left"})
    table.caption = "parts at the moment of a step when memory is highest"
    for line in entry["memory"]:
        table.add_row(
            METHODS[line["method"]] if line["sharding"] == "none" else "",
            SHARDINGS[line["sharding"]],
            *(f"{line[part]:.1f}" for part in PARTS),
            f"{line['total']:.1f}",
            "yes" if line["fits"] else "no",
        )
    return table


def _fitting_table(entry: dict[str, Any]) -> "Table":
    title = f"Layouts for {entry['batch_size']} rows a step"
    table = _table(title, {"method": "left", "": "left", "GPUs": "right", "layout": "left", "GiB": "right"})
    for line in entry["layouts"]:
        here, smallest = line["here"], line["smallest"]
        where = "here" if here["fits"] else "too small"
        table.add_row(METHODS[line["method"]], where, str(here["num_gpus"]), _with_host(here), _gib(here))
        if smallest is None:
            table.add_row("", "fewest", "", "none fits", "")
        else:
            table.add_row("", "fewest", str(smallest["num_gpus"]), _with_host(smallest), _gib(smallest))
    return table


def _with_host(choice: dict[str, Any]) -> str:
    host = choice["host_gib_per_gpu"] * choice["num_gpus"]
    return str(choice["layout"]) + (f" to {host:,.0f} GiB of RAM" if host else "")


def _gib(choice: dict[str, Any]) -> str:
    return f"{choice['gib_per_gpu']:.1f}"


def _table(title: str, columns: dict[str, Any]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name, justify in columns.items():
        # On a narrow terminal a layout may wrap; an alias or a number must not.
        table.add_column(name, justify=justify, no_wrap=name not in FOLDING, overflow="fold")
    return table


def _gpus(number: int) -> str:
    return f"{number} GPU{'s' if number > 1 else ''}"


def _size(num_parameters: int) -> str:
    billions = num_parameters / 1e9
    return f"{billions:.1f}B" if billions >= 1 else f"{num_parameters / 1e6:.0f}M"
