"""Whether the chat template and the model agree on who opens the thought: the first token of a few answers tells.

A template that opens a thought which the model opens again, or one that leaves it to a model which does not, gives answers
that look like answers and are not the model's own. Costs one token per answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stages._errors import StageFailed
from stages.core.answers import OPEN
from stages.engines.base import DecodeSpec, Engine, Request

NUM_ANSWERS = 32
LAST_TOKENS = 4  # of a prompt: where a template that opens the thought has done so, a line feed or two behind it
TEMPLATE = "take the chat template that the model was trained with (chat_template in its folder)"


def check_first_tokens(
    engine: Engine, requests: Sequence[Request], spec: DecodeSpec, seed: int, tokenizer: Any
) -> None:
    """StageFailed if most of the answers to some of `requests` begin as they should not; nothing for a tokenizer without
    the single token that opens a thought."""
    open_id = tokenizer.get_vocab().get(OPEN)
    if open_id is None:
        return
    few = list(requests[:: max(1, len(requests) // NUM_ANSWERS)])[:NUM_ANSWERS]
    answers = list(engine.generate(few, replace(spec, max_tokens=1, repetition=None), seed))
    number = sum(answer.token_ids[0] == open_id for answer in answers)
    opened = all(open_id in request.prompt_ids[-LAST_TOKENS:] for request in few)
    if opened and 2 * number > len(answers):
        raise StageFailed(
            f"The chat template opens a thought and the model opens it again ({number} of {len(answers)} answers begin with "
            f"{OPEN}); {TEMPLATE}."
        )
    if not opened and 2 * number < len(answers):
        raise StageFailed(
            f"Neither the chat template nor the model opens a thought ({len(answers) - number} of {len(answers)} answers do "
            f"not begin with {OPEN}); {TEMPLATE}, or a reasoning model as model.path."
        )
