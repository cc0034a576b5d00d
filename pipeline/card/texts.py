"""What a card says of the texts that came with the items (`captions`) and of those made of them (`descriptions`)."""

from operator import itemgetter

from pipeline.card.markdown import grid, matrix, public, ranked, some
from pipeline.corpus.counting import counted, covered, flattened, lengths, numbers_by, total, values
from pipeline.corpus.table import Table

FLAGS = {
    "boilerplate": "an opening or closing phrase of the model was removed",
    "cut": "the answer reached the token limit and was trimmed at its last full sentence",
    "fragment": "it ended before its first full sentence; kept as it came",
    "loop": "the same words over and over; cut before the second round",
    "markdown": "list marks, headings or emphasis were removed",
    "refusal": "the model declined or spoke of itself; kept as it came",
    "unsure": "the classifier was unsure, and the text says so",
}
EMBEDDED_WARNING = """> [!WARNING]
> **No multimodal LLM wrote these descriptions.** The embedded describer did: an image classifier that knows a thousand
> classes, together with measurements of colour, put into sentences. It cannot count, read or tell what happens, and it
> is often wrong. It reads no prompt: a view's name alone tells it what to say. For descriptions to train on or to
> publish, use a multimodal LLM: `--mllm-url` or `--mllm`."""
LENGTHS = "Smallest / median / largest; words are what spaces separate (Chinese, Japanese, Thai: see the characters)."


def captions_section(captions: Table) -> list[str]:
    """Blocks of Markdown: how many captions in which language, and how long."""
    if not captions.num_rows:
        return ["## Captions", "The source came with none."]
    measures = lengths(captions, ["language", "origin"])
    counts = sorted(values(captions, "language", "origin").items())
    return [
        "## Captions",
        f"Of {some(covered(captions), 'item')}. {LENGTHS}",
        grid(["language", "origin", "captions", "words", "characters"], ((*k, n, *measures[k]) for k, n in counts)),
    ]


def descriptions_section(table: Table) -> list[str]:
    """Blocks of Markdown: how many descriptions in which view, how they ended, who wrote them under which prompt."""
    totals, measures = values(table, "view"), lengths(table, ["view"])
    if not totals:
        return ["## Descriptions", "None could be made: see the failures."]
    tokens = [numbers_by(table, ["view"], itemgetter(column)) for column in ("prompt_tokens", "completion_tokens")]
    sums = {key: [total(counts[key]) if key in counts else "" for counts in tokens] for key in totals}
    rows = ([*key, count, *measures[key], *sums[key]] for key, count in totals.items())
    flags = counted(table, lambda shard: flattened(shard, "view", "flags"))
    legend = "; ".join(f"**{flag}**: {meaning}" for flag, meaning in FLAGS.items() if any(flag in key for key in flags))
    writers = ((public(name), *rest) for name, *rest in ranked(values(table, "captioner", "revision")))
    asked = ((*key, n) for key, n in values(table, "view", "prompt_id", "decoding").items())
    prompts = ([name, view["prompt"]] for name, view in sorted(table.manifest["settings"]["views"].items()))
    return [
        "## Descriptions",
        f"Of {some(covered(table), 'item')}. {LENGTHS}",
        grid(["view", "descriptions", "words", "characters", "prompt tokens", "completion tokens"], rows),
        "How the answers ended (`finish_reason`; `length` is the token limit):",
        matrix(values(table, "view", "finish_reason"), totals),
        f"What was noticed in them (`flags`): {legend if flags else 'nothing'}.",
        *([matrix(flags, totals)] if flags else []),
        "### Who wrote them, and how",
        grid(["captioner", "revision", "descriptions"], writers),
        grid(["view", "prompt_id", "decoding", "descriptions"], asked),
        "The prompts. `{media}` stands for “picture” or “video”; a video's prompt begins with its frames' times.",
        grid(["view", "prompt"], prompts),
    ]
