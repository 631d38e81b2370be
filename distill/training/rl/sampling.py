"""Sample answers to problems through an engine that holds the policy's weights."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from distill.core.records import Problem
from distill.core.thinking import opens_thinking
from distill.engines.base import Completion, Engine, Request
from distill.errors import StageError
from distill.models.tokenizers import Tokenizer, encode, render_prompt
from distill.recipe.sampling import Sampling
from distill.training.rl.rollouts import Rollout


class Sampler:
    """Fills in the answers of rollouts.

    Args:
        engine: holds the policy; returns tokens and log-probabilities.
        tokenizer: the policy's, with its chat template.
        problems: by id.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, problems: Mapping[str, Problem]) -> None:
        self._engine, self._tokenizer, self._problems = engine, tokenizer, problems
        self._prompts: dict[str, tuple[tuple[int, ...], bool]] = {}

    def prompt_of(self, problem_id: str) -> tuple[tuple[int, ...], bool]:
        """Return the tokens of a problem's prompt, and whether it ends in `<think>`."""
        if problem_id not in self._prompts:
            text = render_prompt(self._tokenizer, self._problems[problem_id].prompt)
            self._prompts[problem_id] = tuple(encode(self._tokenizer, text)), opens_thinking(text)
        return self._prompts[problem_id]

    def draw(self, wanted: Iterable[Rollout], sampling: Sampling, done: Callable[[Rollout], None]) -> None:
        """Sample an answer for each rollout, and call `done` with each once it is there.

        The requests go in in the given order, so that equal requests to equal weights give equal answers.

        Raises:
            StageError: the engine could not answer any of them.
        """
        waiting = deque(wanted)
        asked: dict[tuple[str, int], Rollout] = {}
        num_failed, error = 0, ""
        num_wanted = len(waiting)
        while waiting or asked:
            while waiting and self._engine.num_in_flight < self._engine.max_in_flight:
                one = waiting.popleft()
                ids, one.think_opened = self.prompt_of(one.problem_id)
                one.prompt_ids = list(ids)
                # The key tells groups for the same problem apart, too.
                key = (f"{one.problem_id}#{one.draw}", one.index)
                asked[key] = one
                refused = self._engine.submit(Request(key, [], one.seed, sampling, prompt_ids=ids))
                if refused is not None:
                    num_failed, error = num_failed + 1, refused.error
                    done(self._filled(asked.pop(key), refused))
            for completion in self._engine.step():
                if completion.finish_reason == "error":
                    num_failed, error = num_failed + 1, completion.error
                done(self._filled(asked.pop(completion.key), completion))
        if num_wanted and num_failed == num_wanted:
            raise StageError(f"rl: the engine could not answer a single problem: {error}")

    def _filled(self, one: Rollout, completion: Completion) -> Rollout:
        one.text, one.finish_reason, one.error = completion.text, completion.finish_reason, completion.error
        one.ids, one.logprobs = list(completion.token_ids), list(completion.logprobs)
        if not one.ids:  # an answer that failed: a row of one token, whose advantage is 0
            one.ids, one.logprobs = [self._tokenizer.eos_token_id], [0.0]
        return one
