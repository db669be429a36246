"""One vLLM with one model: what a worker of `stages.engines.vllm` holds. Written against vLLM 0.31.0; no files.

vLLM is asked through its offline interface: requests are enqueued as token ids, each with a seed of its own, and the engine
is stepped, so that answers arrive as they end. One request per answer, not n per prompt: a killed run then loses only the
answers that were in flight, and prefix caching computes a prompt once all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from stages._errors import StageFailed, UserError
from stages._param_blocks import EngineParams
from stages.data.model_folder import end_token_ids
from stages.engines.base import DecodeSpec, Request, Response, answer_seed
from stages.engines.limits import check_memory, context_length
from stages.engines.vllm_weights import after_reload, served_hashes

FINISHED = {"stop", "length", "repetition"}
QUEUED_BATCHES = 2  # requests that vLLM holds, in batches: enough to keep it busy, few enough to keep memory flat
GIB = 1 << 30


class VllmModel:
    """Loads the model folder `model_path`; `rank` is the worker's number, None in the process of a trainer.

    `max_tokens` is the longest answer in tokens; with `engine.vllm.max_prompt_tokens` it sizes the KV cache.
    """

    def __init__(
        self,
        rank: int | None,
        model_path: str,
        dtype: str,
        device: str,
        settings: EngineParams,
        max_tokens: int,
        logprobs: bool,
    ) -> None:
        self._path, self._device, self._settings, self._logprobs = Path(model_path), device, settings, logprobs
        longest = settings.vllm.max_prompt_tokens + max_tokens
        self._max_model_len = min(longest, context_length(self._path) or longest)
        self._may_sleep = rank is None and device == "cuda"
        set_environment(rank, device, settings)
        check_memory(self._path, dtype, device, settings.vllm, max_tokens)
        self._llm = self._start(dtype)

    def _start(self, dtype: str) -> Any:
        from vllm import LLM

        vllm, settings = self._settings.vllm, self._settings
        kv_cache = None if vllm.kv_cache_gb is None else int(vllm.kv_cache_gb * GIB)
        try:
            return LLM(
                model=str(self._path),
                dtype=dtype,
                tensor_parallel_size=vllm.tensor_parallel_size,
                gpu_memory_utilization=vllm.gpu_memory_utilization,
                kv_cache_memory_bytes=kv_cache,
                max_model_len=self._max_model_len,
                max_num_seqs=settings.batch_size,
                enforce_eager=vllm.enforce_eager,
                enable_prefix_caching=True,
                # A prompt in two parts rewinds its request's generator, which torch cannot do on CPU (vLLM 0.31.0).
                enable_chunked_prefill=self._device != "cpu",
                enable_sleep_mode=self._may_sleep,
                skip_tokenizer_init=True,  # prompts and answers are token ids
                generation_config="vllm",  # not the model's own temperature, top-p or repetition penalty
                disable_log_stats=True,
                use_tqdm_on_load=False,
                seed=0,
            )
        except (ValueError, RuntimeError) as error:
            about = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"vLLM does not start with the model in {self._path}: {about}. Lower engine.batch_size, "
                "engine.vllm.max_prompt_tokens or decode.max_tokens, or change engine.vllm.gpu_memory_utilization."
            ) from None

    def generate(self, requests: list[Request], spec: DecodeSpec, seed: int) -> Iterator[Response]:
        """Answers as they end. The engine holds a few batches at a time, fed in the order of `requests`."""
        self._check_lengths(requests, spec)
        ends = end_token_ids(self._path)
        waiting = iter(requests)
        running: dict[str, tuple[Request, int]] = {}
        while True:
            wanted = QUEUED_BATCHES * self._settings.batch_size - len(running)
            if wanted >= self._settings.batch_size:
                self._enqueue(list(islice(waiting, wanted)), spec, seed, ends, running)
            if not running:
                return
            for output in self._llm.llm_engine.step():
                if output.finished:
                    yield _response(*running.pop(output.request_id), output)

    def _enqueue(
        self,
        requests: list[Request],
        spec: DecodeSpec,
        seed: int,
        ends: list[int],
        running: dict[str, tuple[Request, int]],
    ) -> None:
        if not requests:
            return
        seeds = [answer_seed(seed, request.problem_id, request.sample_index) for request in requests]
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        params = [sampling_params(spec, one, ends, logprobs=self._logprobs) for one in seeds]
        ids = self._llm.enqueue(prompts, params, use_tqdm=False)
        # vLLM adds a random suffix to the ids that it returns, and reports without it.
        running |= {
            name.rsplit("-", 1)[0]: pair for name, pair in zip(ids, zip(requests, seeds, strict=True), strict=True)
        }

    def _check_lengths(self, requests: list[Request], spec: DecodeSpec) -> None:
        longest = max((len(request.prompt_ids) for request in requests), default=0)
        if longest + spec.max_tokens > self._max_model_len:
            raise UserError(
                f"The longest prompt has {longest} tokens, more than engine.vllm.max_prompt_tokens = "
                f"{self._settings.vllm.max_prompt_tokens}; raise it to {longest}."
            )

    def load(self, model_path: str) -> None:
        """Read the weights of another folder into the running engine."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": model_path})
        self._path = Path(model_path)
        self._take_over()

    def receive(self, named_tensors: Iterable[tuple[str, Any]]) -> None:
        """Copy weights from tensors of this process; names and shapes are the checkpoint's."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": named_tensors})
        self._take_over()

    def _take_over(self) -> None:
        """Nothing that the former weights left may be used again: keys and values of prompts, a copy of a tied layer."""
        self._llm.apply_model(after_reload)
        if not self._llm.reset_prefix_cache():
            raise StageFailed("vLLM kept the prefix cache of the former weights; run the stage again, and report this.")

    def weights(self) -> dict[str, str]:
        """Hash of every served tensor by its checkpoint name; see `Engine.weights`."""
        found = self._llm.apply_model(served_hashes)
        return dict(found[0])

    def sleep(self) -> None:
        if self._may_sleep:
            self._llm.sleep(level=2)  # weights are handed over anew, so none are kept

    def wake(self) -> None:
        if self._may_sleep:
            self._llm.wake_up()

    def close(self) -> None:
        """Give the memory back."""
        import gc

        del self._llm
        gc.collect()


def set_environment(rank: int | None, device: str, settings: EngineParams) -> None:
    """What vLLM and its libraries read from the environment; must come before torch is imported."""
    from stages.engines.vllm import visible_devices

    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs in this process, which is a worker already
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_BATCH_INVARIANT": str(int(settings.vllm.batch_invariant)),
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",  # to send `served_hashes` to the processes of a tensor-parallel group
        "HF_HUB_OFFLINE": "1",
    }
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")  # the exception says it; an ERROR dumps every request
    if device == "cpu":
        os.environ |= {"OMP_NUM_THREADS": str(settings.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    elif rank is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices(rank, settings.vllm.tensor_parallel_size)


def sampling_params(spec: DecodeSpec, seed: int, ends: list[int], *, logprobs: bool) -> Any:
    """`spec` in vLLM's terms for one answer."""
    from vllm import SamplingParams
    from vllm.sampling_params import RepetitionDetectionParams

    repetition = spec.repetition
    return SamplingParams(
        temperature=spec.temperature,
        top_p=spec.top_p,
        max_tokens=spec.max_tokens,
        seed=seed,
        stop_token_ids=ends,
        detokenize=False,
        logprobs=0 if logprobs else None,
        flat_logprobs=logprobs,  # an object per token costs a third of the speed
        repetition_detection=repetition
        and RepetitionDetectionParams(max_pattern_size=repetition.max_pattern_size, min_count=repetition.min_count),
    )


def _response(request: Request, seed: int, output: Any) -> Response:
    answer = output.outputs[0]
    if answer.finish_reason not in FINISHED:
        raise StageFailed(
            f"vLLM ended answer {request.sample_index} to {request.problem_id} with {answer.finish_reason!r}; "
            "run the stage again, finished answers are kept."
        )
    return Response(
        request.problem_id,
        request.sample_index,
        seed,
        tuple(answer.token_ids),
        answer.finish_reason,
        answer.cumulative_logprob,
    )
