"""A model's card: what it is, how it was trained, how good it is, from the record of its run."""

import json
import re
from collections.abc import Mapping
from typing import Any

DIRECTIONS = ("text_to_media", "media_to_text")
AT = ("r1", "r5", "r10")

USE = """\
```python
from PIL import Image
from model.modeling import LeccrModel
from model.processing import LeccrProcessor

model, processor = LeccrModel.from_pretrained(HERE), LeccrProcessor.from_pretrained(HERE)
picture = [[Image.open("photo.jpg")]]  # of a video, several frames
media, slots = model.encode_media(processor.media(picture), processor.descriptions([["A cat on a sofa."]]))
print(media @ model.encode_text(processor.texts(["eine Katze", "un chien"])).T)
```"""


def card(record: Mapping[str, Any]) -> str:
    """README.md of a model. `record`: `settings` (by key), `corpora` (name, training), `tools`, and, once it was
    validated, `validation`: step, split, items, sum_r, chance, global_weight, recalls by language and direction;
    `label`, where something must stand beside every figure."""
    settings, validation = record["settings"], record.get("validation")
    languages = sorted(validation["recalls"]) if validation else list(settings.get("languages", ()))
    parts = [
        _front_matter(languages),
        f"# LECCR, recipe {_plain(settings['recipe'])}\n",
        "Finds images and videos with queries in several languages, trained without labels in them: English captions "
        "and their machine translations, guided by descriptions that a captioner wrote "
        "(LECCR, ACM MM 2024, arXiv 2409.19961).\n",
        _scores(record, validation) if validation else "Not validated yet.\n",
        _training(record),
        f"## Use\n\n`HERE` is the folder of this file, or its name on the Hub.\n\n{USE}\n",
        "## Limits\n\nItems are matched by their picture and by what was written about them: without a description the "
        "score is weaker. Languages that are not listed were not measured. What the encoders and the captions know, "
        "and what they are biased to, this model knows and is biased to as well; their licences apply to its use.\n",
    ]
    return "\n".join(parts)


def _front_matter(languages: list[str]) -> str:
    lines = ["---", "license: other  # that of the encoders and the corpora", "library_name: leccr"]
    lines += ["pipeline_tag: feature-extraction", "tags: [multilingual, image-text-retrieval, video-text-retrieval]"]
    if languages:
        lines.append(f"language: {json.dumps([str(tag) for tag in languages])}")
    return "\n".join([*lines, "---", ""])


def _scores(record: Mapping[str, Any], validation: Mapping[str, Any]) -> str:
    rows = ["| language | R@1 | R@5 | R@10 | back: R@1 | R@5 | R@10 | SumR |", "| --- |" + " ---: |" * 7]
    for language, both in sorted(validation["recalls"].items()):
        recalls = [f"{both[way][at]:.1f}" for way in DIRECTIONS for at in AT]
        rows.append(f"| {_plain(language)} | {' | '.join(recalls)} | {both['sum_r']:.1f} |")
    told = (
        f"Of the {validation['items']:,} items of split `{_plain(validation['split'])}`, with the weights of step "
        f"{validation['step']:,}, which had the best SumR there: {validation['sum_r']:.1f}, mean over languages "
        f"(a random order: {validation['chance']:.1f}); weight of the global similarity in the score, chosen there: "
        f"{validation['global_weight']:g}. Percent; first text to media, then back."
    )
    warning = f"**{_plain(record['label'])}**\n\n" if record.get("label") else ""
    return "\n".join(["## Scores\n", f"{warning}{told}\n", *rows, ""])


def _training(record: Mapping[str, Any]) -> str:
    corpora = ", ".join(f"`{_plain(corpus['name'])}` ({corpus['training'][:12]})" for corpus in record["corpora"])
    tools = ", ".join(f"{_plain(name)} {_plain(version)}" for name, version in sorted(record["tools"].items()))
    settings = "\n".join(
        f"{name}: {json.dumps(value)}" for name, value in sorted(record["settings"].items()) if name != "data"
    )
    settings = settings.replace("`", "'")
    return (
        f"## Training\n\nCorpora: {corpora or 'none'}. Tools: {tools}.\n\n<details><summary>Settings</summary>\n\n"
        f"```yaml\n{settings}\n```\n\n</details>\n"
    )


def _plain(text: Any) -> str:
    """Text that no markdown or HTML is read in."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
