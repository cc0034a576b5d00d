"""The table of the four benchmarks in docs/results.md, filled from what `stages/score.py --output FILE.json` wrote.

    python bench/benchmarks.py SCORES.json …

A row is a recipe, a method and a language; scored again, its figure is replaced. Weights that were selected on the test
split, as the released code does, have a column of their own: their figure says nothing about unseen data.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- benchmarks: filled by bench/benchmarks.py -->", "<!-- end of benchmarks -->"
HEADER = (
    "| recipe | method | language | SumR | 95 % | weights chosen on | SumR, chosen on test | published by NRCCR |",
    "| --- | --- | --- | ---: | ---: | --- | ---: | ---: |",
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
Cells = dict[str, str]  # of a row, those of FIGURES that are known
FIGURES = ("sum_r", "interval", "chosen", "chosen_on_test")


def empty_rows() -> dict[Key, Cells]:
    """A row for every recipe that has a published figure."""
    keys = [
        (f"{name}_{language}", method, language) for name, language in PUBLISHED for method in ("faithful", "corrected")
    ]
    keys += [(f"{name}_best", "corrected", language) for name, language in PUBLISHED]
    return {key: {"sum_r": UNKNOWN} for key in keys}


def format_row(key: Key, cells: Cells) -> str:
    recipe, _, language = key
    published = PUBLISHED.get((recipe.rsplit("_", 1)[0], language))
    columns = (*key, *(cells.get(name, "") for name in FIGURES), f"{published:.1f}" if published else "")
    return f"| {' | '.join(columns)} |"


def read_rows(scores: Any, name: str) -> dict[Key, Cells]:
    """The rows of one JSON of `score`. Raises SystemExit for anything but a run's scores on test."""
    try:
        checkpoint, split, languages = scores["checkpoint"], scores["split"], scores["languages"]
        selection, recipe, method = (checkpoint[part] for part in ("selection", "recipe", "method"))
    except (KeyError, TypeError) as error:
        raise SystemExit(f"{name} has no {error}. Give a file that stages/score.py --output wrote.") from error
    if split != "test":
        raise SystemExit(f"{name} has figures of split {split!r}. Score it with --split test.")
    if not selection:
        raise SystemExit(f"{name} has weights that no run selected. Score a run: the selection is part of the row.")
    rows_by_key: dict[Key, Cells] = {}
    for language, figures in languages.items():
        low, high = figures["intervals"]["sum_r"]
        sum_r, interval = f"{figures['sum_r']:.1f}", f"{low:.1f} to {high:.1f}"
        step = f"step {selection['step']:,}"
        if selection["split"] == "test":
            cells = {"chosen_on_test": f"{sum_r} ({interval}), {step}"}
        else:
            cells = {"sum_r": sum_r, "interval": interval, "chosen": f"{selection['split']}, {step}"}
        rows_by_key[recipe, method, language] = cells
    return rows_by_key


def fill_page(text: str, rows_by_key: dict[Key, Cells]) -> str:
    """The page with the rows in its table. Raises SystemExit where the marks of the table are missing."""
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{DOCS} has no table between {BEGIN} and {END}. Put the two lines back.")
    rows = empty_rows()
    for line in old.strip().splitlines()[len(HEADER) :]:
        recipe, method, language, *figures = (cell.strip() for cell in line.split("|")[1:-1])
        rows[recipe, method, language] = dict(zip(FIGURES, figures, strict=False))
    for key, cells in rows_by_key.items():
        rows[key] = {"sum_r": UNKNOWN, **rows.get(key, {}), **cells}
    table = "\n".join((*HEADER, *(format_row(key, cells) for key, cells in rows.items())))
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", nargs="+", type=Path, help="JSON files of stages/score.py --output, of split test")
    parser.add_argument("--page", type=Path, default=DOCS, help="that holds the table (docs/results.md)")
    options = parser.parse_args(argv)
    rows_by_key: dict[Key, Cells] = {}
    for path in options.scores:
        for key, cells in read_rows(json.loads(path.read_text(encoding="utf-8")), str(path)).items():
            rows_by_key[key] = rows_by_key.get(key, {}) | cells
    options.page.write_text(fill_page(options.page.read_text(encoding="utf-8"), rows_by_key), encoding="utf-8")
    print(f"{options.page}: {len(rows_by_key)} rows written")


if __name__ == "__main__":
    main()
