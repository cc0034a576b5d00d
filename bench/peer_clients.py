"""The peers that bench/peers.py measures: small uses of each library as its documentation shows them.

    ENVIRONMENT/bin/python bench/peer_clients.py ray TASKS OUTPUT --url http://127.0.0.1:8000 --model NAME --window 80

Each runs in an environment of its own and imports nothing of this project. TASKS is a JSONL file of `id`, `path` of a
JPEG, `prompt` and `max_tokens`; OUTPUT receives JSONL files of `id` and `text`. Run again after a kill, a peer resumes
as far as its library can. Every setting that is not a default is there because it did better than the default.
"""

import argparse
import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

DECODING = {"temperature": 0.0, "seed": 0}
BEAM_BATCH = 256
DISTILABEL_BATCH = 256


def data_url(task: dict[str, Any]) -> str:
    """The picture of one task."""
    return f"data:image/jpeg;base64,{base64.b64encode(Path(task['path']).read_bytes()).decode()}"


def messages(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The chat of one task."""
    picture = {"type": "image_url", "image_url": {"url": data_url(task)}}
    return [{"role": "user", "content": [picture, {"type": "text", "text": task["prompt"]}]}]


def payload(task: dict[str, Any]) -> dict[str, Any]:
    """The body of a request, without the model's name."""
    return {"messages": messages(task), "max_tokens": task["max_tokens"], **DECODING}


def write_rows(output: Path, rows: list[dict[str, Any]]) -> None:
    """For libraries that leave writing to their user: all rows at the end."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


# datatrove: one document per task, answers cached and documents checkpointed


async def rollout(document: Any, generate: Any) -> Any:
    """One request per document."""
    return (await generate(payload(document.metadata))).text


def answer_row(_: Any, document: Any) -> dict[str, Any]:
    """What datatrove's writer writes of a document."""
    return {"id": document.id, "text": document.metadata["rollout_results"][0]}


def datatrove(tasks: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Its inference runner. (Where a server is on another host, its readiness check asks for /v1/v1/models.)"""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    runner = InferenceRunner(
        rollout,
        InferenceConfig(
            server_type="endpoint",
            model_name_or_path=options.model,
            endpoint_url=options.url,
            max_concurrent_generations=options.window,
        ),
        JsonlWriter(str(options.output), "${rank}_chunk_${chunk_index}.jsonl", compression=None, adapter=answer_row),
        checkpoints_local_dir=str(options.state / "checkpoints"),
        records_per_chunk=500,
        skip_bad_requests=True,
    )
    documents = [Document(text=task["prompt"], id=task["id"], metadata=task) for task in tasks]
    LocalPipelineExecutor([documents, runner], logging_dir=str(options.state / "logs")).run()


# Ray Data


def ray(tasks: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Its HTTP request processor: two actors, because one has nothing to do while the last answers of a block arrive.

    A batch is sent one request after the other, so batches are of one request and many are in flight.
    """
    os.environ["RAY_DATA_DEFAULT_ASYNC_BATCH_UDF_MAX_CONCURRENCY"] = str(options.window)
    import ray
    from ray.data.checkpoint import CheckpointConfig
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig("id", str(options.state / "checkpoints"))
    config = HttpRequestProcessorConfig(
        url=f"{options.url}/v1/chat/completions",
        batch_size=1,
        concurrency=(2, 2),
        http_request_stage={"num_cpus": 0.25},
        max_retries=7,
    )

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        """The row of an answer. A status that is not tried again, such as 500, comes as an answer without choices."""
        choices = row["http_response"].get("choices")
        return {"id": row["id"], "text": choices[0]["message"]["content"] if choices is not None else ""}

    processor = build_processor(
        config, preprocess=lambda task: {"payload": {"model": options.model, **payload(task)}}, postprocess=answer
    )
    processor(ray.data.read_json(str(options.tasks))).write_json(str(options.output))


# NeMo Curator


def nemo(tasks: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Its asynchronous client. It keeps no state, so a run that was killed starts anew."""
    from nemo_curator.models.client.llm_client import GenerationConfig
    from nemo_curator.models.client.openai_client import AsyncOpenAIClient

    async def ask_all() -> list[Any]:
        client = AsyncOpenAIClient(
            max_concurrent_requests=options.window, max_retries=7, base_url=f"{options.url}/v1", api_key="EMPTY"
        )
        client.setup()
        questions = (
            client.query_model(
                messages=messages(task),
                model=options.model,
                generation_config=GenerationConfig(max_tokens=task["max_tokens"], **DECODING),
            )
            for task in tasks
        )
        return await asyncio.gather(*questions, return_exceptions=True)

    answers = zip(tasks, asyncio.run(ask_all()), strict=True)
    rows = [{"id": task["id"], "text": reply[0]} for task, reply in answers if not isinstance(reply, BaseException)]
    write_rows(options.output, rows)


# distilabel


def distilabel(tasks: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """A task of its pipeline, which asks batch by batch and caches finished batches."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGenerationWithImage

    limit = max(task["max_tokens"] for task in tasks)  # a model has one for all
    model = OpenAILLM(
        model=options.model,
        base_url=f"{options.url}/v1",
        api_key="EMPTY",
        generation_kwargs={"max_new_tokens": limit, "temperature": 0.0},
    )
    rows = [{"id": task["id"], "instruction": task["prompt"], "image": data_url(task)} for task in tasks]
    with Pipeline("captions", cache_dir=str(options.state)) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=DISTILABEL_BATCH)
        load >> TextGenerationWithImage(llm=model, image_type="url", input_batch_size=DISTILABEL_BATCH)
    described = pipeline.run(use_cache=True)["default"]["train"]
    write_rows(options.output, [{"id": row["id"], "text": row["generation"]} for row in described])


# Beam's RunInference


def running_server(url: str, model: str, batch: int) -> Any:
    """Beam's own handler for vLLM's chat, pointed at a running server instead of one that it starts."""
    from apache_beam.ml.inference import vllm_inference
    from openai import AsyncOpenAI

    class RunningServer(vllm_inference.VLLMChatModelHandler):
        def load_model(self) -> Address:
            return Address()

    vllm_inference.getAsyncVLLMClient = lambda port: AsyncOpenAI(api_key="EMPTY", base_url=f"{url}/v1")
    return RunningServer(model, min_batch_size=batch, max_batch_size=batch)


class Address:
    """Stands for the server process that Beam's handler would start and watch."""

    def get_server_port(self) -> int:
        return 0

    def check_connectivity(self) -> None:
        raise RuntimeError("the server failed a request")


def beam(tasks: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """RunInference keyed by task; a batch that fails is a dead letter, not the end."""
    import apache_beam
    from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
    from apache_beam.ml.inference.vllm_inference import OpenAIChatMessage

    handler = KeyedModelHandler(running_server(options.url, options.model, BEAM_BATCH))
    limit = max(task["max_tokens"] for task in tasks)  # RunInference has one for all

    def chat(task: dict[str, Any]) -> tuple[str, list[Any]]:
        return task["id"], [OpenAIChatMessage(**message) for message in messages(task)]

    def row(result: tuple[str, Any]) -> str:
        return json.dumps({"id": result[0], "text": result[1].inference.choices[0].message.content})

    with apache_beam.Pipeline(runner="FnApiRunner") as pipeline:
        chats = pipeline | apache_beam.Create(tasks, reshuffle=False) | apache_beam.Map(chat)
        asked = RunInference(handler, inference_args={"max_tokens": limit, **DECODING}).with_exception_handling()
        answers, _ = chats | asked
        answers | apache_beam.Map(row) | apache_beam.io.WriteToText(str(options.output / "rows"), ".jsonl")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=("datatrove", "ray", "nemo", "distilabel", "beam"))
    for name in ("tasks", "output"):
        parser.add_argument(name, type=Path)
    for name in ("--url", "--model"):
        parser.add_argument(name, required=True)
    parser.add_argument("--window", type=int, required=True)
    options = parser.parse_args()
    options.state = options.output.with_name(f"{options.output.name}-state")
    tasks = [json.loads(line) for line in options.tasks.read_text("utf-8").splitlines()]
    globals()[options.peer](tasks, options)


if __name__ == "__main__":
    main()
