"""Teachers of on-policy distillation: what they expect where the student wrote.

A teacher is a model on this machine, or an OpenAI-compatible server that gives prompt log-probabilities (vLLM does).
Its vocabulary may be padded otherwise than the student's; that both call the same token by the same number is proven
first.
"""

import json
import os
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, Protocol

import torch

from distill.core.records import Problem
from distill.core.thinking import teacher_messages
from distill.errors import ModelError, StageError
from distill.models.tokenizers import Tokenizer, check_same_tokens, encode, load_tokenizer, render_prompt
from distill.recipe.rl import RlConfig
from distill.recipe.sampling import SamplingCompute
from distill.training.cpu import TILE_NUMBERS
from distill.training.rl.divergence import Targets, TopTargets, WholeTargets, can_project
from distill.training.rl.packed import can_pack, packed_states, set_shared_prompts
from distill.training.rl.rollouts import Rollout

BATCH_TOKENS = 16_384
"""Most tokens in one forward pass of a teacher on this machine, padding included."""
AT_ONCE = 16
"""Requests to a served teacher at the same time."""
IDS_A_REQUEST = 1_024
"""Tokens of the vocabulary that a server is asked about at a time."""
TOP = 20
"""Likeliest tokens that a server tells of at each place: the most that vLLM gives unless `--max-logprobs` is set."""
WAITS_S = (0.5, 5.0, 20.0)
"""Before each further attempt at a request that a server failed to answer."""


class Teacher(Protocol):
    """What on-policy distillation needs of a teacher."""

    def log_probs(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the natural log of the probability of each token of each answer, at temperature 1.

        Args:
            rollouts: the answers.
            prompts: the tokens that the teacher sees before each.
        """

    def targets(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> Targets:
        """Return what it expects at each token of the answers, one answer after the other."""


class Teaching:
    """The teachers of a training, and what they see before each answer.

    Args:
        teachers: at least one.
        config: `rl:` of the recipe, with their system prompt and worked examples.
        tokenizer: the student's.
        problems: by id.
    """

    def __init__(
        self, teachers: Sequence[Teacher], config: RlConfig, tokenizer: Tokenizer, problems: Mapping[str, Problem]
    ) -> None:
        self._teachers, self._tokenizer, self._problems = teachers, tokenizer, problems
        self._system = config.teacher_system
        self._examples = [(one.problem, one.reasoning, one.answer) for one in config.teacher_examples]

    def fill_in(self, rollouts: Sequence[Rollout]) -> None:
        """Set `teacher_logprobs` of answers: the mean over the teachers."""
        prompts = [self._prompt(one) for one in rollouts]
        told = [teacher.log_probs(rollouts, prompts) for teacher in self._teachers]
        for one, of_teachers in zip(rollouts, zip(*told, strict=True), strict=True):
            one.teacher_logprobs = [statistics.fmean(of_token) for of_token in zip(*of_teachers, strict=True)]

    def targets(self, rollouts: Sequence[Rollout]) -> list[Targets]:
        """Return what each teacher expects at each token of the answers, one answer after the other."""
        if not rollouts:
            return []
        prompts = [self._prompt(one) for one in rollouts]
        return [teacher.targets(rollouts, prompts) for teacher in self._teachers]

    def _prompt(self, one: Rollout) -> list[int]:
        if self._system is None and not self._examples:
            return one.prompt_ids
        messages = teacher_messages(self._problems[one.problem_id].prompt, self._system, self._examples)
        return encode(self._tokenizer, render_prompt(self._tokenizer, messages))


def start_teachers(
    wanted: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, compute: SamplingCompute
) -> list[Teacher]:
    """Load the teachers on this machine and look for the served ones.

    Args:
        wanted: `name`, and `path` or `url`, of each.
        tokenizer: the student's.
        compute: key and time limit of requests.

    Raises:
        ModelError: one is not there, or its tokenizer is another one.
    """
    found: list[Teacher] = []
    for one in wanted:
        if one.get("url"):
            found.append(ServedTeacher(one["url"], one["name"], tokenizer, compute))
        else:
            found.append(LocalTeacher(Path(one["path"]), one["name"], tokenizer))
    return found


class LocalTeacher:
    """A model in this process."""

    def __init__(self, path: Path, name: str, tokenizer: Tokenizer) -> None:
        from transformers import AutoModelForCausalLM

        check_same_tokens(load_tokenizer(path, None, key="rl.teachers"), tokenizer, name)
        on_gpu = torch.cuda.is_available()
        try:
            self._model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.bfloat16 if on_gpu else torch.float32, trust_remote_code=False
            )
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            raise ModelError(f"rl.teachers: {name} cannot be loaded ({str(error).splitlines()[0][:300]}).") from error
        if not can_project(self._model):
            raise ModelError(f"rl.teachers: {name} scales or limits its logits. Let a server run it (vllm serve).")
        # Each process of a training has its own GPU, and a copy of the teacher there.
        self._model.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if on_gpu else "cpu").eval()
        self._pad = tokenizer.pad_token_id or 0
        self._packs = not on_gpu and can_pack(self._model)
        if self._packs:
            set_shared_prompts(self._model)

    def log_probs(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the natural log of the probability of each token of each answer, at temperature 1."""
        with torch.inference_mode():
            states, weight = self._states(rollouts, prompts), self._weight
            chosen = torch.tensor([token for one in rollouts for token in one.ids], device=states.device)
            found: list[float] = []
            for rows, tokens in zip(
                *(part.split(max(1, TILE_NUMBERS // weight.shape[0])) for part in (states, chosen)), strict=True
            ):
                told = torch.mm(rows, weight.t()).float().log_softmax(-1)
                found += told.gather(1, tokens[:, None]).squeeze(1).tolist()
        ends = list(accumulate(len(one.ids) for one in rollouts))
        return [found[end - len(one.ids) : end] for one, end in zip(rollouts, ends, strict=True)]

    def targets(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> Targets:
        """Return what it expects at each token of the answers, one answer after the other."""
        with torch.no_grad():
            return WholeTargets(self._states(rollouts, prompts), self._weight)

    @property
    def _weight(self) -> torch.Tensor:
        weight: torch.Tensor = self._model.get_output_embeddings().weight
        return weight

    def _states(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the hidden states that predict the tokens of the answers, one answer after the other."""
        whole = [[*prompt, *one.ids] for prompt, one in zip(prompts, rollouts, strict=True)]
        found: list[torch.Tensor | None] = [None] * len(rollouts)
        for start, places in self._batches(prompts, whole):
            # All rows of a batch begin with the same tokens.
            rests = [whole[place][start:] for place in places]
            longest = max(map(len, rests))
            ids = [
                [*whole[place][:start], *rest, *[self._pad] * (longest - len(rest))]
                for place, rest in zip(places, rests, strict=True)
            ]
            real = [[1] * (start + len(rest)) + [0] * (longest - len(rest)) for rest in rests]
            batch, mask = (torch.tensor(rows, device=self._model.device) for rows in (ids, real))
            if self._packs:
                _, states = packed_states(self._model, batch, mask, longest)
                parts = states.split([len(rest) for rest in rests])
            else:
                states = self._model.base_model(input_ids=batch, attention_mask=mask, use_cache=False)
                parts = tuple(
                    row[start - 1 : start - 1 + len(rest)]
                    for row, rest in zip(states.last_hidden_state, rests, strict=True)
                )
            for place, part in zip(places, parts, strict=True):
                found[place] = part[len(part) - len(rollouts[place].ids) :]
        return torch.cat([part for part in found if part is not None])

    def _batches(
        self, prompts: Sequence[Sequence[int]], whole: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield the places of rows that are computed at once, and how many first tokens they share."""
        if not self._packs:
            order = sorted(range(len(whole)), key=lambda place: len(whole[place]))
            while order:
                num = min(len(order), max(1, BATCH_TOKENS // len(whole[order[-1]])))
                yield 1, order[-num:]
                order = order[:-num]
            return
        # What a batch shares is computed once: the worked examples before all problems, or each problem's prompt.
        shared = _num_shared(prompts)
        if 2 * shared > max(map(len, prompts)):
            yield shared, list(range(len(whole)))
            return
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for place, prompt in enumerate(prompts):
            by_prompt.setdefault(tuple(prompt), []).append(place)
        yield from ((len(prompt), places) for prompt, places in by_prompt.items())


def _num_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all prompts have in common."""
    # Whatever the first and the last in order share, those between them share too.
    rows = [tuple(prompt) for prompt in prompts]
    pairs = zip(min(rows), max(rows), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class ServedTeacher:
    """A model behind an OpenAI-compatible server that gives prompt log-probabilities.

    Raises:
        ModelError: the server does not answer, or its tokenizer is another one.
    """

    def __init__(self, url: str, name: str, tokenizer: Tokenizer, compute: SamplingCompute) -> None:
        self._url, self._name, self._compute = url.rstrip("/"), name, compute
        self._check_tokens(tokenizer)

    def log_probs(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the natural log of the probability of each token of each answer, at temperature 1.

        Raises:
            StageError: the server has no answer, or none with log-probabilities.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._log_probs, rollouts, prompts))

    def targets(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> Targets:
        """Return what it expects at each token of the answers, one answer after the other.

        Raises:
            StageError: the server has no answer, or none with log-probabilities.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            told = [place for found in pool.map(self._top, rollouts, prompts) for place in found]
        num = max(map(len, told), default=1)
        ids = torch.tensor([[*place, *[-1] * (num - len(place))] for place in told])
        log_probs = torch.tensor([[*place.values(), *[0.0] * (num - len(place))] for place in told])
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        return TopTargets(ids.to(device), log_probs.to(device))

    def _log_probs(self, one: Rollout, prompt: Sequence[int]) -> list[float]:
        return [place[token] for place, token in zip(self._top(one, prompt, 0), one.ids, strict=True)]

    def _top(self, one: Rollout, prompt: Sequence[int], num: int = TOP) -> list[dict[int, float]]:
        """Return token -> log-probability at each place of an answer: of the answer's own, and of the likeliest."""
        ids = [*prompt, *one.ids]
        body = {"model": self._name, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": num}
        try:
            told = self._ask(f"{self._url}/completions", body)["choices"][0]["prompt_logprobs"]
            found = [
                {int(token): float(entry["logprob"]) for token, entry in told[place].items()}
                for place in range(len(prompt), len(ids))
            ]
            if missing := [place for place, token in zip(found, one.ids, strict=True) if token not in place]:
                raise KeyError(f"the answer's own token, among {sorted(missing[0])[:3]}")
            return found
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise StageError(
                f"rl.teachers: {self._url} gave no prompt log-probabilities ({type(error).__name__}: {error}). vLLM's "
                "server does (`vllm serve MODEL`); others may not."
            ) from error

    def _check_tokens(self, tokenizer: Tokenizer) -> None:
        """Raise if the server's tokens are not the student's, by asking for the text of all of them."""
        root = self._url.removesuffix("/v1")
        for start in range(0, len(tokenizer), IDS_A_REQUEST):
            ids = list(range(start, min(start + IDS_A_REQUEST, len(tokenizer))))
            body = {"model": self._name, "tokens": ids}
            try:
                told = self._ask(f"{root}/detokenize", body)["prompt"]
            except (StageError, KeyError, TypeError) as error:
                raise ModelError(
                    f"rl.teachers: {self._url} does not tell its tokens ({error}), so it cannot be shown that they are "
                    "the student's. vLLM's server does; or name a model on this machine."
                ) from error
            if told != tokenizer.decode(ids, skip_special_tokens=False):
                raise ModelError(
                    f"rl.teachers: {self._name} at {self._url} has another tokenizer than the student: tokens "
                    f"{ids[0]} to {ids[-1]} are other texts. Choose a teacher of the student's family."
                )

    def _ask(self, url: str, body: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._compute.api_key_env):
            headers["Authorization"] = f"Bearer {key}"
        error: Exception | None = None
        for wait_s in (0.0, *WAITS_S):
            time.sleep(wait_s)
            request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - http(s), by config
            try:
                with urllib.request.urlopen(request, timeout=self._compute.request_timeout_s) as response:  # noqa: S310
                    return json.load(response)
            except urllib.error.HTTPError as refused:
                error = refused
                if refused.code < 500 and refused.code != 429:
                    break
            except (OSError, ValueError) as lost:
                error = lost
        raise StageError(f"rl.teachers: {url} does not answer: {error}. The same command goes on when it does.")
