"""The transformers engine, by either way of batching, on a model small enough for a test."""

import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from distill.engines.base import STEP_S, EngineSpec, Request
from distill.engines.loops import CHECK_EVERY
from distill.engines.transformers import ContinuousBatcher, PendingRequest, RowEnds, TransformersEngine
from distill.errors import ModelError
from distill.models.tokenizers import encode, load_tokenizer, render_prompt
from distill.recipe.sampling import LoopStop, Sampling, SamplingCompute

WITHIN_S = 120.0
EOS = 2
QUESTIONS = [f"What is {i} + {i + 1}?" + " Think about it." * (i % 3) for i in range(10)]


def messages(question):
    return [{"role": "user", "content": question}]


def make_spec(path, max_tokens=12, temperature=0.0, loops=None, **compute):
    return EngineSpec(
        model_path=path,
        model_name="tiny",
        sampling=Sampling(temperature=temperature, top_p=1.0, max_tokens=max_tokens),
        compute=SamplingCompute(engine="transformers", **{"dtype": "float32", "max_num_seqs": 4} | compute),
        chat_format=None,
        longest_messages=[messages(max(QUESTIONS, key=len))],
        loops=loops,
    )


@pytest.fixture
def start():
    engines = []

    def make(spec, batching=None):
        engines.append(TransformersEngine(spec, batching))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def ask(engine, questions):
    """Keeps the engine full, as sampling does; the completions by question."""
    waiting = list(enumerate(questions))
    answers = {}
    deadline = time.monotonic() + WITHIN_S
    while waiting or engine.num_in_flight:
        assert time.monotonic() < deadline
        while waiting and engine.num_in_flight < engine.max_in_flight:
            index, question = waiting.pop(0)
            assert engine.submit(Request((question, index), messages(question), index)) is None
        for completion in engine.step():
            assert completion.key not in answers
            answers[completion.key] = completion
    assert len(answers) == len(questions)
    return {key[0]: completion for key, completion in answers.items()}


def generated(path, question, max_tokens):
    """What plain `generate` makes of a question alone."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(path, None)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    ids = torch.tensor([encode(tokenizer, render_prompt(tokenizer, messages(question)))])
    output = model.generate(ids, max_new_tokens=max_tokens, do_sample=False, eos_token_id=tokenizer.eos_token_id)
    return output[0, ids.shape[1] :].tolist()


@pytest.fixture
def make_model(tiny_llama, tmp_path):
    """A small random model of another kind with the tiny Llama's tokenizer."""

    def make(config_class, **options):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
        config = config_class(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=EOS,
            dtype="float32",
            **options,
        )
        folder = tmp_path / config_class.__name__
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


both = pytest.mark.parametrize("batching", ["continuous", "static"])


@both
@pytest.mark.slow
def test_greedy_answers_are_those_of_plain_generate(start, tiny_llama, batching):
    engine = start(make_spec(tiny_llama), batching)
    answers = ask(engine, QUESTIONS)
    tokenizer = load_tokenizer(tiny_llama, None)
    for question in QUESTIONS:
        ids = generated(tiny_llama, question, 12)
        stopped = ids[-1] == EOS
        assert answers[question].text == tokenizer.decode(ids[:-1] if stopped else ids)
        assert answers[question].num_completion_tokens == len(ids)
        assert answers[question].finish_reason == ("stop" if stopped else "length")
    assert engine.settings["batching"] == batching


@both
@pytest.mark.slow
def test_each_request_is_drawn_by_its_own_sampling_whatever_is_beside_it(start, tiny_llama, batching):
    """Greedy requests among random ones get greedy answers, of their own length; the engine's own are random."""
    engine = start(make_spec(tiny_llama, max_tokens=20, temperature=5.0), batching)
    greedy = [Sampling(temperature=0.0, max_tokens=num) for num in (5, 12)]
    waiting = [
        Request((question, i), messages(question), i, own)
        for question in QUESTIONS[:4]
        for i, own in enumerate(
            (None, greedy[0], Sampling(temperature=4.0, top_p=0.9, top_k=9, max_tokens=7), greedy[1])
        )
    ]
    found, deadline = {}, time.monotonic() + WITHIN_S
    while waiting or engine.num_in_flight:
        assert time.monotonic() < deadline
        while waiting and engine.num_in_flight < engine.max_in_flight:
            assert engine.submit(waiting.pop(0)) is None
        found.update((completion.key, completion) for completion in engine.step())
    tokenizer = load_tokenizer(tiny_llama, None)
    for question in QUESTIONS[:4]:
        ids = generated(tiny_llama, question, 12)
        assert EOS not in ids
        lengths = [found[question, i].num_completion_tokens for i in range(4)]
        assert lengths == [20, 5, 7, 12]
        texts = [found[question, i].text for i in range(4)]
        assert (texts[1], texts[3]) == (tokenizer.decode(ids[:5]), tokenizer.decode(ids))
        assert not texts[0].startswith(texts[1])
        assert texts[2] != tokenizer.decode(ids[:7])


@pytest.mark.slow
@pytest.mark.parametrize("max_num_seqs", [1, 2, 16])
def test_the_size_of_the_batch_does_not_change_a_greedy_answer(start, tiny_llama, max_num_seqs):
    one = ask(start(make_spec(tiny_llama, max_tokens=40, max_num_seqs=max_num_seqs)), QUESTIONS)
    other = ask(start(make_spec(tiny_llama, max_tokens=40, max_num_seqs=5), "static"), QUESTIONS)
    assert {question: c.text for question, c in one.items()} == {question: c.text for question, c in other.items()}


@pytest.mark.slow
def test_a_sliding_window_is_respected(start, make_model):
    from transformers import MistralConfig

    path = make_model(MistralConfig, sliding_window=8)
    engine = start(make_spec(path, max_tokens=24))
    assert engine.settings["batching"] == "continuous"
    one, other = ask(engine, QUESTIONS), ask(start(make_spec(path, max_tokens=24), "static"), QUESTIONS)
    assert {question: c.text for question, c in one.items()} == {question: c.text for question, c in other.items()}


@pytest.mark.slow
def test_a_model_whose_layers_are_not_plain_attention_goes_in_static_batches(start, make_model):
    from transformers import Gemma2Config

    engine = start(make_spec(make_model(Gemma2Config, head_dim=16)))
    assert engine.settings["batching"] == "static"
    assert len(ask(engine, QUESTIONS)) == len(QUESTIONS)


@both
@pytest.mark.slow
def test_the_model_s_own_generation_settings_are_not_applied(start, tiny_llama, tmp_path, batching):
    """A repetition penalty in generation_config.json would change what the recipe asked for."""
    import shutil

    from transformers import GenerationConfig

    other = tmp_path / "penalised"
    shutil.copytree(tiny_llama, other)
    GenerationConfig(repetition_penalty=5.0, no_repeat_ngram_size=1, eos_token_id=EOS).save_pretrained(other)
    plain = ask(start(make_spec(tiny_llama), batching), QUESTIONS[:2])
    assert plain == ask(start(make_spec(other), batching), QUESTIONS[:2])


@both
@pytest.mark.slow
def test_stop_and_length_are_told_apart_and_the_stop_token_is_left_out(start, tiny_llama, batching):
    """At a high temperature the random model meets its stop token sometimes: one token in 49,152, were it uniform."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        model.model.embed_tokens.weight[EOS] *= 40.0
    folder = tiny_llama.parent / f"stops-{batching}"
    model.save_pretrained(folder)
    load_tokenizer(tiny_llama, None).save_pretrained(folder)
    answers = ask(start(make_spec(folder, temperature=1.0, max_tokens=30), batching), QUESTIONS * 4)
    reasons = {completion.finish_reason for completion in answers.values()}
    assert reasons == {"stop", "length"}
    for completion in answers.values():
        assert not completion.text.endswith("<|im_end|>")
        if completion.finish_reason == "length":
            assert completion.num_completion_tokens == 30


@both
@pytest.mark.slow
def test_a_prompt_longer_than_the_context_is_refused_at_once(start, tiny_llama, batching):
    engine = start(make_spec(tiny_llama), batching)
    refused = engine.submit(Request(("long", 0), messages("word " * 600), 0))
    assert refused is not None
    assert refused.finish_reason == "error"
    assert "the context has 512" in refused.error or "the context has" in refused.error
    assert engine.num_in_flight == 0
    assert len(ask(engine, QUESTIONS[:2])) == 2


@both
@pytest.mark.slow
def test_each_completion_has_the_room_that_its_own_prompt_leaves(start, tiny_llama, batching):
    engine = start(make_spec(tiny_llama, max_tokens=100, max_model_len=110, temperature=1.0), batching)
    answers = ask(engine, QUESTIONS)
    for completion in answers.values():
        room = min(100, 110 - completion.num_prompt_tokens)
        assert completion.finish_reason == "stop" or completion.num_completion_tokens == room


@pytest.mark.slow
def test_step_comes_back_in_time_and_an_answer_does_not_wait_for_a_longer_one(start, tiny_llama):
    """Room differs because the prompts do: the longest prompt's completion ends first."""
    spec = replace(make_spec(tiny_llama, max_tokens=400, max_model_len=420), longest_messages=[messages("word " * 350)])
    engine = start(spec)
    for name, content in (("long", "word"), ("short", "word " * 350)):
        assert engine.submit(Request((name, 0), messages(content), 0)) is None
    finished = []
    while engine.num_in_flight:
        started = time.monotonic()
        finished += [completion.key[0] for completion in engine.step()]
        assert time.monotonic() - started < STEP_S + 1.0
    assert finished == ["short", "long"]


@both
@pytest.mark.slow
def test_tokens_in_flight_are_counted_and_no_step_takes_long(start, tiny_llama, batching):
    engine = start(make_spec(tiny_llama, max_tokens=400, max_num_seqs=2, temperature=1.0), batching)
    assert engine.num_tokens_in_flight == 0
    questions = QUESTIONS[:4]
    for i, question in enumerate(questions):
        assert engine.submit(Request((question, i), messages(question), i)) is None
    counts, num_finished = [], 0
    while engine.num_in_flight:
        counts.append(engine.num_tokens_in_flight)
        started = time.monotonic()
        num_finished += sum(completion.num_completion_tokens for completion in engine.step())
        assert time.monotonic() - started < STEP_S + 1.0
        assert engine.num_tokens_in_flight <= 400 * engine.num_in_flight
    assert max(counts) > 50
    assert engine.num_tokens_in_flight == 0
    assert max(counts) <= num_finished


def test_tokens_of_a_request_that_had_to_make_room_still_count():
    """It waits again, with what it has drawn as part of its prompt."""
    from transformers.generation.continuous_batching.requests import RequestState

    batcher = object.__new__(ContinuousBatcher)
    prompt = [5, 6, 7, 8]
    batcher._asked = {name: PendingRequest(None, prompt, 9, False) for name in ("runs", "waits", "queued")}
    runs, waits = (RequestState(name, prompt[:], generated_tokens=[1, 2, 3]) for name in ("runs", "waits"))
    again = waits.create_equivalent_initial_request()
    scheduler = SimpleNamespace(active_requests={"runs": runs}, waiting_requests={"waits": again})
    batcher._engine = SimpleNamespace(batch_processor=SimpleNamespace(scheduler=scheduler))
    assert batcher.num_tokens == 6
    again.generated_tokens.append(4)
    assert batcher.num_tokens == 7
    batcher._engine.batch_processor = None
    assert batcher.num_tokens == 0


@both
@pytest.mark.slow
def test_a_loop_is_stopped_and_the_others_are_not(start, tiny_llama, batching):
    """The random model's greedy answers end in loops; with high thresholds they do not count as such."""
    strict = LoopStop(min_repeats=3, min_tokens=16, max_period=64)
    answers = ask(start(make_spec(tiny_llama, max_tokens=300, loops=strict), batching), QUESTIONS[:6])
    looped = [completion for completion in answers.values() if completion.finish_reason == "loop"]
    assert looped
    assert {completion.num_completion_tokens for completion in looped} <= {CHECK_EVERY, 2 * CHECK_EVERY}
    lenient = LoopStop(min_repeats=3, min_tokens=400)
    answers = ask(start(make_spec(tiny_llama, max_tokens=300, loops=lenient), batching), QUESTIONS[:6])
    assert {completion.finish_reason for completion in answers.values()} <= {"length", "stop"}


@pytest.mark.slow
def test_a_cache_smaller_than_the_batch_only_takes_longer(start, tiny_llama):
    kib_per_token = 2 * 2 * 16 * 4 / 1024  # keys and values, two layers, one head of 16 numbers of 4 bytes
    spec = make_spec(tiny_llama, max_tokens=60, max_num_seqs=8, kv_cache_gib=150 * kib_per_token / 2**20)
    answers = ask(start(spec), QUESTIONS)
    full = ask(start(make_spec(tiny_llama, max_tokens=60)), QUESTIONS)
    assert {question: c.text for question, c in answers.items()} == {question: c.text for question, c in full.items()}


@pytest.mark.slow
def test_a_cache_too_small_for_one_sample_is_refused(start, tiny_llama):
    with pytest.raises(ModelError, match=r"one sample of .* tokens needs .* GiB of KV cache"):
        start(make_spec(tiny_llama, max_tokens=100, kv_cache_gib=1e-6))


@both
@pytest.mark.slow
def test_close_ends_the_thread_while_requests_are_in_flight(tiny_llama, batching):
    import threading

    from torch.nn.modules.module import register_module_forward_pre_hook

    before, num_passes = set(threading.enumerate()), Counter[str]()
    engine = TransformersEngine(make_spec(tiny_llama, max_tokens=470), batching)
    count = register_module_forward_pre_hook(lambda module, _: num_passes.update([type(module).__name__]))
    for i in range(8):
        engine.submit(Request((f"p{i}", 0), messages("word"), i))
    while not engine.num_tokens_in_flight:
        engine.step()
    assert engine.num_in_flight == 8
    num_before = num_passes["LlamaForCausalLM"]
    engine.close()
    count.remove()
    assert 0 < num_passes["LlamaForCausalLM"] <= num_before + 100  # of 470
    assert set(threading.enumerate()) == before


@pytest.mark.slow
def test_what_goes_wrong_in_a_static_batch_is_raised_by_step(start, tiny_llama, monkeypatch):
    engine = start(make_spec(tiny_llama), "static")

    def fail(**_):
        raise MemoryError("no room")

    monkeypatch.setattr(engine._batcher._model, "generate", fail)
    engine.submit(Request(("p", 0), messages("word"), 0))
    with pytest.raises(MemoryError, match="no room"):
        engine.step()


def test_rows_end_at_their_room_at_the_stop_token_or_in_a_loop():
    import torch

    loops = LoopStop(min_repeats=3, min_tokens=16)
    ends = RowEnds([500, 3, 500, 500], num_prompt=2, eos=9, loops=loops)
    long = list(range(100, 100 + CHECK_EVERY))
    rows = [
        [7] * CHECK_EVERY,
        [1, 2, 3] + [0] * (CHECK_EVERY - 3),  # ended at its room: what follows is padding
        [5, 9] + [0] * (CHECK_EVERY - 2),  # stopped by itself
        long,
    ]
    ids_BT = torch.tensor([[0, 0, *row] for row in rows])
    assert ends.num_tokens == 0
    assert ends(ids_BT, None).tolist() == [True, True, False, False]
    assert ends.looped == {0: CHECK_EVERY}
    assert ends.num_tokens == CHECK_EVERY + 3 + 2 + CHECK_EVERY
    padded = [row + [0] * 10 for row in rows]
    assert [ends.cut(i, row) for i, row in enumerate(padded)] == [rows[0], [1, 2, 3], [5, 9], long + [0] * 10]
