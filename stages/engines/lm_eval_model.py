"""An lm-eval model served by our engines: prompts as token ids, every repeat its own seed, nothing of an answer lost.

lm-eval's own backends hand on text alone. Here an answer is a `str` that also carries its token ids, finish reason and
seed; it passes through filters, `process_results`, pickling and the sample log as the same object. Reads and writes the
append-only log of finished answers only. Used by `stages/evaluate.py`. Base class: `lm_eval.api.model.LM` (0.4.13).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM

from stages._errors import UserError
from stages.data.lm_eval_output import document_id
from stages.engines.base import DecodeSpec, Engine, Request, Response
from stages.engines.rollouts import draw


class GeneratedText(str):
    """Text of one answer, special tokens kept, with what the engine knows of it. `token_ids` are the generated ids."""

    token_ids: tuple[int, ...]
    finish_reason: str
    seed: int

    def __new__(cls, text: str, token_ids: Sequence[int], finish_reason: str, seed: int) -> GeneratedText:
        self = super().__new__(cls, text)
        self.token_ids, self.finish_reason, self.seed = tuple(token_ids), finish_reason, seed
        return self

    def __getnewargs__(self) -> tuple[str, tuple[int, ...], str, int]:  # type: ignore[override]
        return str(self), self.token_ids, self.finish_reason, self.seed

    @property
    def num_tokens(self) -> int:
        """Length of the answer in generated tokens, the end token included."""
        return len(self.token_ids)


class EngineLM(LM):  # type: ignore[misc]
    """Answers lm-eval's `generate_until` requests with any `Engine`.

    `encode` maps the text that a task gives to prompt ids, through the model's chat template; `decode` maps generated
    ids to text with every special token kept. `bos_id` is the BOS that each prompt must hold exactly once, None for
    models that have none. Finished answers are kept in `log_path`: an interrupted evaluation draws only the others.
    """

    def __init__(
        self,
        engine: Engine,
        spec: DecodeSpec,
        seed: int,
        *,
        encode: Callable[[str], tuple[int, ...]],
        decode: Callable[[tuple[int, ...]], str],
        bos_id: int | None,
        log_path: Path,
        title: str,
    ) -> None:
        super().__init__()
        self._engine, self._spec, self._seed = engine, spec, seed
        self._encode, self._decode, self._bos_id = encode, decode, bos_id
        self._log_path, self._title = log_path, title

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """One `GeneratedText` per lm-eval instance, in the order of `requests`; repeats are the same instance again."""
        wanted = self.make_requests(requests)
        responses = draw(self._engine, wanted, self._spec, self._seed, self._log_path, self._title)
        return [self._text(response) for response in responses]

    def make_requests(self, instances: Sequence[Any]) -> list[Request]:
        """Engine requests: the id is task/question, the sample index counts the repeats of one instance."""
        seen: Counter[str] = Counter()
        prompts: dict[str, tuple[int, ...]] = {}
        wanted = []
        for instance in instances:
            problem_id = f"{instance.task_name}/{document_id(instance.doc, instance.doc_id)}"
            if problem_id not in prompts:
                prompt, settings = instance.args
                self._check_settings(instance.task_name, settings)
                prompts[problem_id] = self._prompt(problem_id, prompt)
            wanted.append(Request(problem_id, seen[problem_id], prompts[problem_id]))
            seen[problem_id] += 1
        return wanted

    def _prompt(self, problem_id: str, prompt: str) -> tuple[int, ...]:
        ids = self._encode(prompt)
        if self._bos_id is not None and ids.count(self._bos_id) != 1:
            raise UserError(
                f"The prompt of {problem_id} has {ids.count(self._bos_id)} BOS tokens instead of one; correct the "
                "chat template of the model's tokenizer."
            )
        return ids

    def _check_settings(self, task: str, settings: dict[str, Any]) -> None:
        """The decode specification rules; a task that asks for anything else must not be answered as if it had not."""
        if settings != generation_settings(self._spec):
            raise UserError(
                f"Task {task} asks for {settings}, but answers are drawn as the `decode` block of params.yaml says; "
                "remove generation_kwargs from the task."
            )

    def _text(self, response: Response) -> GeneratedText:
        text = self._decode(response.token_ids)
        return GeneratedText(text, response.token_ids, response.finish_reason, response.seed)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        raise UserError("Reasoning models are evaluated by what they generate; choose a task of type generate_until.")

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        raise UserError("Reasoning models are evaluated by what they generate; choose a task of type generate_until.")


def generation_settings(spec: DecodeSpec) -> dict[str, Any]:
    """`spec` in lm-eval's terms; `until` is empty, since answers end at the end token or at the limit."""
    return {"until": [], "max_gen_toks": spec.max_tokens, "temperature": spec.temperature, "top_p": spec.top_p}
