"""Teachers of on-policy distillation: how likely they find each token that the student sampled.

A teacher is a model on this machine, or an OpenAI-compatible server that gives prompt log-probabilities (vLLM does).
Only the sampled token's log-probability is needed, so that the teacher's vocabulary may be padded otherwise than the
student's; that both call the same token by the same number is proven first.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from distill.errors import ModelError, StageError
from distill.models.tokenizers import Tokenizer, load_tokenizer
from distill.recipe.sampling import SamplingCompute
from distill.training.rl.rollouts import Rollout

BATCH_TOKENS = 16_384
"""Most tokens in one forward pass of a teacher on this machine, padding included."""
AT_ONCE = 16
"""Requests to a served teacher at the same time."""
IDS_A_REQUEST = 1_024
"""Tokens of the vocabulary that a server is asked about at a time."""
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
        import torch
        from transformers import AutoModelForCausalLM

        from distill.training.rl.packed import can_pack, set_shared_prompts

        check_same_tokens(load_tokenizer(path, None, key="rl.teachers"), tokenizer, name)
        on_gpu = torch.cuda.is_available()
        try:
            self._model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.bfloat16 if on_gpu else torch.float32, trust_remote_code=False
            )
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            raise ModelError(f"rl.teachers: {name} cannot be loaded ({str(error).splitlines()[0][:300]}).") from error
        self._model.to("cuda" if on_gpu else "cpu").eval()
        self._pad = tokenizer.pad_token_id or 0
        self._packs = not on_gpu and can_pack(self._model)
        if self._packs:
            set_shared_prompts(self._model)

    def log_probs(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the natural log of the probability of each token of each answer, at temperature 1."""
        import torch

        if self._packs:
            return self._packed(rollouts, prompts)
        found: list[list[float]] = [[] for _ in rollouts]
        whole = [[*prompt, *one.ids] for prompt, one in zip(prompts, rollouts, strict=True)]
        # Rows of similar length together, to reduce padding.
        order = sorted(range(len(rollouts)), key=lambda place: len(whole[place]))
        while order:
            longest = len(whole[order[-1]])
            num = min(len(order), max(1, BATCH_TOKENS // longest))
            batch, order = order[-num:], order[:-num]
            rows = [whole[place] for place in batch]
            ids = torch.tensor([row + [self._pad] * (longest - len(row)) for row in rows], device=self._model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=ids.device)
            with torch.inference_mode():
                hidden = self._model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                for place, states, row in zip(batch, hidden, rows, strict=True):
                    answer = rollouts[place].ids
                    states = states[len(row) - len(answer) - 1 : len(row) - 1]
                    logits = self._model.get_output_embeddings()(states).float()
                    targets = torch.tensor(answer, device=logits.device)
                    chosen = logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)
                    found[place] = chosen.tolist()
        return found

    def _packed(self, rollouts: Sequence[Rollout], prompts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the same, with each prompt computed once for all of its answers."""
        import torch

        from distill.training.rl.packed import packed_log_probs

        found: list[list[float]] = [[] for _ in rollouts]
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for place, prompt in enumerate(prompts):
            by_prompt.setdefault(tuple(prompt), []).append(place)
        for prompt, places in by_prompt.items():
            answers = [rollouts[place].ids for place in places]
            longest = max(map(len, answers))
            ids = torch.tensor([[*prompt, *answer, *[self._pad] * (longest - len(answer))] for answer in answers])
            real = [[1] * (len(prompt) + len(answer)) + [0] * (longest - len(answer)) for answer in answers]
            with torch.inference_mode():
                told, _ = packed_log_probs(self._model, ids, torch.tensor(real), longest, temperature=1.0)
            for place, answer, row in zip(places, answers, told.tolist(), strict=True):
                found[place] = row[: len(answer)]
        return found


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

    def _log_probs(self, one: Rollout, prompt: Sequence[int]) -> list[float]:
        ids = [*prompt, *one.ids]
        body = {"model": self._name, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        try:
            told = self._ask(f"{self._url}/completions", body)["choices"][0]["prompt_logprobs"]
            found = [told[place][str(ids[place])]["logprob"] for place in range(len(prompt), len(ids))]
            return [float(value) for value in found]
        except (KeyError, IndexError, TypeError, ValueError) as error:
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


def check_same_tokens(teacher: Tokenizer, student: Tokenizer, name: str) -> None:
    """Raise if a teacher calls some token of the student by another number.

    Args:
        teacher: its tokenizer; it may have more tokens than the student's.
        student: the student's.
        name: of the teacher.

    Raises:
        ModelError: that is so.
    """
    theirs = {number: token for token, number in teacher.get_vocab().items()}
    for token, number in sorted(student.get_vocab().items(), key=lambda pair: pair[1]):
        if theirs.get(number) != token:
            raise ModelError(
                f"rl.teachers: {name} has another tokenizer than the student: token {number} is "
                f"{theirs.get(number)!r} there and {token!r} here. Choose a teacher of the student's family."
            )
