"""The table of the four benchmarks in docs/results.md, filled from what `stages/score.py --output FILE.json` wrote.

    python bench/benchmarks.py SCORES.json …

A row is a recipe, a method and a language; scored again, it is replaced. How the checkpoint was selected stands beside
each figure.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- benchmarks: filled by bench/benchmarks.py -->", "<!-- end of benchmarks -->"
HEADER = (
    "| recipe | method | language | SumR | 95 % | published by NRCCR | weights chosen on |",
    "| --- | --- | --- | ---: | ---: | ---: | --- |",
)
# SumR of CLIP ViT-B/32 with mBERT, on the same data
PUBLISHED = {
    ("multi30k", "de"): 480.9,
    ("multi30k", "fr"): 482.1,
    ("multi30k", "cs"): 467.1,
    ("mscoco", "zh"): 512.4,
    ("mscoco", "ja"): 507.0,
    ("vatex", "zh"): 366.5,
    ("msrvtt_cn", "zh"): 308.0,
}
UNKNOWN = "not yet measured"
Key = tuple[str, str, str]  # recipe, method, language


def empty() -> dict[Key, str]:
    """A row for every recipe there is a published figure for."""
    keys = [
        (f"{name}_{language}", method, language) for name, language in PUBLISHED for method in ("faithful", "corrected")
    ]
    keys += [(f"{name}_best", "corrected", language) for name, language in PUBLISHED]
    return {key: row(key, UNKNOWN, "", "") for key in keys}


def row(key: Key, sum_r: str, interval: str, selection: str) -> str:
    recipe, method, language = key
    published = PUBLISHED.get((recipe.rsplit("_", 1)[0], language))
    cells = (recipe, method, language, sum_r, interval, f"{published:.1f}" if published else "", selection)
    return f"| {' | '.join(cells)} |"


def rows_of(scores: Any, name: str) -> dict[Key, str]:
    """Of one JSON of `score`. Raises SystemExit for one that is none, of a split but test, or not of a run."""
    try:
        checkpoint, split, languages = scores["checkpoint"], scores["split"], scores["languages"]
        selection, recipe, method = (checkpoint[part] for part in ("selection", "recipe", "method"))
    except (KeyError, TypeError) as error:
        raise SystemExit(f"{name}: got no {error} in it, wanted what stages/score.py --output wrote") from error
    if split != "test":
        raise SystemExit(f"{name}: got figures of split {split!r}, wanted test: score it with --split test")
    if not selection:
        raise SystemExit(
            f"{name}: got weights of no run, wanted those of one: how they were selected is part of the row"
        )
    chosen = f"{selection['split']}, step {selection['step']:,}"
    found = {}
    for language, figures in languages.items():
        low, high = figures["intervals"]["sum_r"]
        key = recipe, method, language
        found[key] = row(key, f"{figures['sum_r']:.1f}", f"{low:.1f} to {high:.1f}", chosen)
    return found


def filled(text: str, found: dict[Key, str]) -> str:
    """The page with the rows in its table. Raises SystemExit where the marks of the table are not there."""
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{DOCS}: has no table between {BEGIN} and {END}: put the two lines back")
    rows = empty()
    for line in old.strip().splitlines()[len(HEADER) :]:
        recipe, method, language = (cell.strip() for cell in line.split("|")[1:4])
        rows[recipe, method, language] = line
    table = "\n".join((*HEADER, *(rows | found).values()))
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", nargs="+", type=Path, help="JSON files of stages/score.py --output, of split test")
    parser.add_argument("--page", type=Path, default=DOCS, help="that holds the table (docs/results.md)")
    options = parser.parse_args(argv)
    found: dict[Key, str] = {}
    for path in options.scores:
        found |= rows_of(json.loads(path.read_text(encoding="utf-8")), str(path))
    options.page.write_text(filled(options.page.read_text(encoding="utf-8"), found), encoding="utf-8")
    print(f"{options.page}: {len(found)} rows written")


if __name__ == "__main__":
    main()
