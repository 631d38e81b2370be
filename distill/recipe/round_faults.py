"""What can be wrong between the rounds of a recipe: names, references to other rounds, rows and gates."""

from collections.abc import Iterator, Mapping, Sequence

from distill.recipe.gates import BASE, COMPARING, gate_fault
from distill.recipe.rl_faults import R1_ZERO
from distill.recipe.rounds import ROUND, Fault, Round, round_in
from distill.recipe.sft import THIS
from distill.recipe.steps import MAKING_MODELS
from distill.recipe.yaml_tree import KeyPath

NO_OWN_ROWS = (
    "this round has no rows of its own (neither generate: nor traces:). Name the rounds whose rows are trained on, "
    "e.g. rows: [round:NAME]."
)


def faults(rounds: Sequence[Round], has_eval: bool) -> Iterator[Fault]:
    """Yield what is wrong between rounds: names, references to other rounds, rows and gates.

    Args:
        rounds: of the recipe, in order.
        has_eval: whether the recipe has `eval:`.
    """
    before: dict[str, Round] = {}
    every = {one.name: place for place, one in enumerate(rounds)}
    for place, one in enumerate(rounds):
        at: KeyPath = ("rounds", place)
        if one.name in before:
            yield (*at, "name"), f"two rounds are called {one.name!r}. Give each round a name of its own."
        models = ((("student",), one.student_round), (("generate", "teacher"), one.teacher_round))
        for key, name in models:
            if name is not None and (why := _no_model(name, one, place, before, every)):
                yield (*at, *key), why
        for number, source in enumerate(one.traces):
            if source.round is not None and (why := _no_rollouts(source.round, one, place, before, every)):
                yield (*at, "traces", number, "source"), why
        if why := _other_prompts(one, before):
            yield (*at, "rl", "prompt_format"), why
        yield from _row_faults(one, at, before, every, place)
        yield from _gate_faults(one, at, before, every, place, has_eval)
        before[one.name] = one


def _not_before(name: str, one: Round, place: int, every: Mapping[str, int]) -> str | None:
    """Return why a round cannot be referred to, or `None` if it is an earlier one."""
    if name == one.name:
        return f"round:{name} is this round itself; it can only use what earlier rounds made."
    if name not in every:
        there = ", ".join(every)
        return f"there is no round {name!r}. There are: {there}."
    if every[name] > place:
        return f"round:{name} comes later. Rounds run in the order in which they are listed: move {name!r} up."
    return None


def _no_model(name: str, one: Round, place: int, before: Mapping[str, Round], every: Mapping[str, int]) -> str | None:
    """Return why a round has no model that a later one could use, or `None` if it has one."""
    if why := _not_before(name, one, place, every):
        return why
    if before[name].makes_model:
        return None
    makers = [f"round:{earlier}" for earlier, other in before.items() if other.makes_model]
    some = f" Rounds that make one: {', '.join(makers)}." if makers else ""
    return f"round:{name} makes no model (it has neither sft: nor rl:), only rows.{some}"


def _no_rollouts(
    name: str, one: Round, place: int, before: Mapping[str, Round], every: Mapping[str, int]
) -> str | None:
    """Return why a round has no rollouts that a later one could import, or `None` if it has some."""
    if why := _not_before(name, one, place, every):
        return why
    if before[name].rl is not None:
        return None
    makers = [f"round:{earlier}" for earlier, other in before.items() if other.rl is not None]
    way = f"Rounds that have some: {', '.join(makers)}." if makers else "Rounds with rl: have some."
    rows = f" Its kept rows are trained on with sft.rows: [round:{name}]." if before[name].has_traces else ""
    return f"round:{name} has no rollouts (it has no rl:). {way}{rows}"


def _other_prompts(one: Round, before: Mapping[str, Round]) -> str | None:
    """Return why a round may not ask with R1-Zero's template, or `None`: its student has learnt another one."""
    earlier = before.get(one.student_round or "")
    if earlier is None or one.sft is not None or one.rl is None or one.rl.prompt_format != R1_ZERO:
        return None  # `distill.recipe.rl_faults` compares it with an sft: of the same round
    learnt = [earlier.rl and earlier.rl.prompt_format, earlier.sft and earlier.sft.chat_template]
    if R1_ZERO in learnt:
        return None
    return (
        f"r1-zero is for a base model, and round:{earlier.name} trains the student on another template. Leave it out: "
        "this round then asks as that one did."
    )


def _gate_faults(
    one: Round, at: KeyPath, before: Mapping[str, Round], every: Mapping[str, int], place: int, has_eval: bool
) -> Iterator[Fault]:
    sections: dict[str, bool] = {name: getattr(one, name) is not None for name in MAKING_MODELS}
    sections |= {"traces": one.has_traces, "eval": has_eval and one.makes_model}
    for metric, wanted in one.gate.items():
        why = gate_fault(metric, wanted, sections)
        if why is None and metric in COMPARING and wanted != BASE:
            name = round_in(wanted)
            why = (
                f"{wanted!r} is not a model to compare with; write round:NAME or base."
                if name is None
                else _no_model(name, one, place, before, every)
            )
        if why is not None:
            yield (*at, "gate", metric), why


def _row_faults(
    one: Round, at: KeyPath, before: Mapping[str, Round], every: Mapping[str, int], place: int
) -> Iterator[Fault]:
    for entry in one.sft.rows if one.sft is not None else ():
        if entry == THIS:
            why = None if one.has_traces else NO_OWN_ROWS
        else:
            name = entry.removeprefix(ROUND)
            why = _not_before(name, one, place, every) or _unfit_rows(one, before[name])
        if why is not None:
            yield (*at, "sft", "rows"), why


def _unfit_rows(one: Round, other: Round) -> str | None:
    """Return why a round cannot train on another one's rows, or `None` if it can."""
    if not other.has_traces or other.filter is None:
        return f"round:{other.name} has no rows of its own: it has neither generate: nor traces:."
    assert one.sft is not None
    longest = other.filter.max_tokens
    if longest is None and other.generate is not None:
        longest = other.generate.sampling.max_tokens
    if longest is not None and longest > one.sft.max_length:
        return (
            f"round:{other.name} keeps rows of up to {longest} tokens, longer than this round's sft.max_length "
            f"({one.sft.max_length}). Raise sft.max_length, or lower filter.max_tokens in {other.name!r}."
        )
    if other.sft is not None and other.sft.chat_template != one.sft.chat_template:
        theirs, ours = (sft.chat_template or "the model's own" for sft in (other.sft, one.sft))
        return (
            f"the rows of round:{other.name} were made for another chat template ({theirs}; here {ours}). Set the same "
            "sft.chat_template in both rounds."
        )
    return None
