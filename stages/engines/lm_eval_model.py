"""lm-eval models served by our engines: prompts as token ids, every repeat its own seed, nothing of an answer lost.

lm-eval's own backends hand on text alone. Here an answer is a `str` (what is scored: the text after the closed thought,
empty if the answer was cut) that also carries everything that was generated, its token ids, finish reason and seed; it
passes through filters, `process_results`, pickling and the sample log as the same object.

Importing this module registers the backends `tldr-hf` and `tldr-vllm` (lm-eval 0.4.13 has no entry points for models):

    lm_eval.simple_evaluate(model="tldr-hf", model_args="pretrained=FOLDER,params=params.yaml", tasks=[...])

Base class: `lm_eval.api.model.LM` (0.4.13); `TemplateLM` adds only what scores given continuations, and our engines
answer. Reads and writes the store of finished answers, and nothing else.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from stages._errors import UserError
from stages._io import folder_digest
from stages._params import Params, check_params, read_yaml
from stages.data.lm_eval_output import document_id
from stages.data.model_folder import check_model
from stages.data.prompts import decode_text, load_tokenizer, prompt_ids
from stages.data.response_store import ResponseStore, evaluations_folder, store_path
from stages.engines.base import DecodeSpec, Engine, Request, Response, decode_spec, open_engine
from stages.engines.rollouts import draw_missing
from stages.verifier.grade import answer_text

GENERATES = "Reasoning models are evaluated by what they generate; choose a task of type generate_until."


class GeneratedText(str):
    """One answer: as a string what is scored of it, in `text` all of it, special tokens kept.

    `token_ids` are the generated ids. The defaults are for lm-eval, which makes the gold answer the type of the answer.
    """

    text: str
    finish_reason: str
    seed: int
    _ids: array[int]

    def __new__(
        cls, text: object, token_ids: Iterable[int] = (), finish_reason: str = "stop", seed: int = 0
    ) -> GeneratedText:
        self = super().__new__(cls, answer_text(str(text), finish_reason))
        self.text, self.finish_reason, self.seed = str(text), finish_reason, seed
        self._ids = array("i", token_ids)  # 4 bytes a token: lm-eval holds all answers of all tasks at once
        return self

    def __getnewargs__(self) -> tuple[str, tuple[int, ...], str, int]:  # type: ignore[override]
        return self.text, self.token_ids, self.finish_reason, self.seed

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(self._ids)

    @property
    def num_tokens(self) -> int:
        """Length of the answer in generated tokens, the end token included."""
        return len(self._ids)


class EngineLM(LM):  # type: ignore[misc]
    """Answers lm-eval's `generate_until` requests with any `Engine`.

    `encode` maps the text that a task gives to prompt ids, as one user turn through the model's chat template; `decode`
    maps generated ids to text with every special token kept. `bos_id` is the BOS that each prompt must hold exactly once,
    None for models that have none. Finished answers are kept in the file `store`: an interrupted evaluation draws only
    the others. The decode specification rules; with `strict`, a task that asks for anything else is refused. With
    `starts_engine` the engine lives only while it draws, and does not start if nothing is missing.
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
        store: Path,
        title: str,
        strict: bool = True,
        starts_engine: bool = False,
    ) -> None:
        super().__init__()
        self._engine, self._spec, self._seed = engine, spec, seed
        self._encode, self._decode, self._bos_id = encode, decode, bos_id
        self._store, self._title, self._strict, self._starts_engine = store, title, strict, starts_engine

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """One `GeneratedText` per lm-eval instance, in the order of `requests`; repeats are the same instance again."""
        wanted = self.make_requests(requests)
        with ResponseStore(self._store) as store:
            if any(request not in store for request in wanted):
                with self._engine if self._starts_engine else nullcontext():
                    draw_missing(self._engine, wanted, self._spec, self._seed, store, self._title)
            return [self._text(store.read(request)) for request in wanted]

    def make_requests(self, instances: Sequence[Any]) -> list[Request]:
        """Engine requests: the id is task/question, the sample index counts the repeats of one instance."""
        seen: Counter[str] = Counter()
        prompts: dict[str, tuple[int, ...]] = {}
        numbers: dict[str, int] = {}
        wanted = []
        for instance in instances:
            problem_id = f"{instance.task_name}/{document_id(instance.doc, instance.doc_id)}"
            if numbers.setdefault(problem_id, instance.doc_id) != instance.doc_id:
                raise UserError(f"Two questions have the id {problem_id}; give every question an id of its own.")
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
        if self._strict and settings != generation_settings(self._spec):
            raise UserError(
                f"Task {task} asks for {settings}, but answers are drawn as the `decode` block of params.yaml says; "
                "remove generation_kwargs from the task."
            )

    def _text(self, response: Response) -> GeneratedText:
        text = self._decode(response.token_ids)
        return GeneratedText(text, response.token_ids, response.finish_reason, response.seed)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        raise UserError("Prompts go through the model's chat template here anyway; leave apply_chat_template out.")

    @property
    def tokenizer_name(self) -> str:
        return ""  # lm-eval asks before it applies a chat template, which is then refused

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        raise UserError(f"Task {requests[0].task_name} compares given answers. {GENERATES}")

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        raise UserError(f"Task {requests[0].task_name} measures given texts. {GENERATES}")


@register_model("tldr-hf")
class HfLM(EngineLM):
    """Backend `tldr-hf`: `pretrained` is the model folder (left out: model.path), `params` a params.yaml.

    Decode specification, seed and engine sizes come from that file, whatever a task's generation_kwargs say. Answers are
    kept in .tldr/evaluations/ beside it.
    """

    engine_name = "hf"

    def __init__(self, pretrained: str | None = None, params: str = "params.yaml", **unknown: Any) -> None:
        if unknown:
            raise UserError(
                f"Backend tldr-{self.engine_name} does not know {', '.join(sorted(unknown))}; it takes pretrained and "
                "params, everything else is set in params.yaml."
            )
        file = Path(params).resolve()
        settings = with_engine(check_params(read_yaml(file), str(params)), self.engine_name)
        model_path = file.parent / settings.model.path if pretrained is None else Path(pretrained).resolve()
        check_model(model_path)
        spec, digest = decode_spec(settings), folder_digest(model_path)
        super().__init__(
            open_engine(settings, model_path),
            spec,
            settings.seed,
            **tokenizer_settings(model_path),
            store=store_path(evaluations_folder(file.parent, digest), settings, digest, spec),
            title=model_path.name,
            strict=False,
            starts_engine=True,  # lm-eval never says that it is done with a model
        )


@register_model("tldr-vllm")
class VllmLM(HfLM):
    """Backend `tldr-vllm`: the same with vLLM."""

    engine_name = "vllm"


def with_engine(params: Params, name: str) -> Params:
    """`params` with engine.name = `name`."""
    return params.model_copy(update={"engine": params.engine.model_copy(update={"name": name})})


def generation_settings(spec: DecodeSpec) -> dict[str, Any]:
    """`spec` in lm-eval's terms; `until` is empty, since answers end at the end token or at the limit."""
    return {"until": [], "max_gen_toks": spec.max_tokens, "temperature": spec.temperature, "top_p": spec.top_p}


def tokenizer_settings(model_path: Path) -> dict[str, Any]:
    """`encode`, `decode` and `bos_id` of `EngineLM` for the tokenizer in `model_path`."""
    tokenizer = load_tokenizer(model_path)
    template = str(tokenizer.chat_template)
    # Qwen and others have no BOS, or have one that their template never writes
    writes_bos = tokenizer.bos_token is not None and ("bos_token" in template or tokenizer.bos_token in template)
    return {
        "encode": partial(prompt_ids, tokenizer),
        "decode": partial(decode_text, tokenizer),
        "bos_id": int(tokenizer.bos_token_id) if writes_bos else None,
    }
