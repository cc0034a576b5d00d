"""The model card: what a model is, how it was trained and how good it is, from the record of its run."""

import json
import re
from collections.abc import Mapping
from typing import Any

DIRECTIONS = ("text_to_media", "media_to_text")
CUTOFFS = ("r1", "r5", "r10")

FRONT_MATTER = """\
---
license: other  # that of the encoders and the corpora
library_name: leccr
pipeline_tag: feature-extraction
tags: [multilingual, image-text-retrieval, video-text-retrieval]
language: {languages}
---
"""
USE = """\
```python
from PIL import Image
from model.modeling import LeccrModel
from model.processing import LeccrProcessor

model, processor = LeccrModel.from_pretrained(HERE), LeccrProcessor.from_pretrained(HERE)
picture = [[Image.open("photo.jpg")]]  # several frames for a video
media, slots = model.encode_media(processor.media(picture), processor.descriptions([["A cat on a sofa."]]))
print(media @ model.encode_text(processor.texts(["eine Katze", "un chien"])).T)
```"""


def card(record: Mapping[str, Any]) -> str:
    """Write the README.md of a model.

    Args:
        record: `settings` by key, `corpora` (name, training), `tools`; after a validation also `validation` (step,
            split, items, sum_r, chance, global_weight, recalls by language and direction) and `label`, a warning to
            print with the scores, if there is one.
    """
    settings, validation = record["settings"], record.get("validation")
    languages = sorted(validation["recalls"]) if validation else list(settings.get("languages", ()))
    parts = [
        FRONT_MATTER.format(languages=json.dumps(list(map(str, languages)))),
        f"# LECCR, recipe {_escape(settings['recipe'])}\n",
        "Finds images and videos with queries in several languages. Trained without labels in those languages, on "
        "English captions and their machine translations, guided by descriptions that a captioner wrote "
        "(LECCR, ACM MM 2024, arXiv 2409.19961).\n",
        _scores(record, validation) if validation else "Not validated yet.\n",
        _training(record),
        f"## Use\n\n`HERE` is the folder of this file, or its name on the Hub.\n\n{USE}\n",
        "## Limits\n\nItems are matched by their picture and by their descriptions; without a description the score is "
        "less accurate. Languages that are not listed were not measured. The model inherits the knowledge and the "
        "biases of its encoders and captions; their licences apply to its use.\n",
    ]
    return "\n".join(parts)


def _scores(record: Mapping[str, Any], validation: Mapping[str, Any]) -> str:
    rows = [
        "| language | text to media: R@1 | R@5 | R@10 | media to text: R@1 | R@5 | R@10 | SumR |",
        "| --- |" + " ---: |" * 7,
    ]
    for language, both in sorted(validation["recalls"].items()):
        recalls = [f"{both[direction][cutoff]:.1f}" for direction in DIRECTIONS for cutoff in CUTOFFS]
        rows.append(f"| {_escape(language)} | {' | '.join(recalls)} | {both['sum_r']:.1f} |")
    summary = (
        f"Recall in percent on the {validation['items']:,} items of split `{_escape(validation['split'])}`, with the "
        f"weights of step {validation['step']:,}, which had the best SumR there: {validation['sum_r']:.1f}, mean over "
        f"languages (chance: {validation['chance']:.1f}). The global similarity has weight "
        f"{validation['global_weight']:g} in the score, chosen on the same split."
    )
    warning = f"**{_escape(record['label'])}**\n\n" if record.get("label") else ""
    return "\n".join(["## Scores\n", f"{warning}{summary}\n", *rows, ""])


def _training(record: Mapping[str, Any]) -> str:
    corpora = ", ".join(f"`{_escape(corpus['name'])}` ({corpus['training'][:12]})" for corpus in record["corpora"])
    tools = ", ".join(f"{_escape(name)} {_escape(version)}" for name, version in sorted(record["tools"].items()))
    settings = "\n".join(
        f"{name}: {json.dumps(value)}" for name, value in sorted(record["settings"].items()) if name != "data"
    )
    settings = settings.replace("`", "'")
    return (
        f"## Training\n\nCorpora: {corpora or 'none'}. Tools: {tools}.\n\n<details><summary>Settings</summary>\n\n"
        f"```yaml\n{settings}\n```\n\n</details>\n"
    )


def _escape(text: Any) -> str:
    """Text in which nothing is read as Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
