"""The defaults, on a corpus of your own: small encoders from random weights, or any tower by name or folder.

Command:  accelerate launch stages/train.py --recipe base --data CORPUS --output RUN media=NAME text=NAME
Hardware: as the towers want
Cost:     as the data wants
Score:    not yet measured
"""

from typing import Any


def recipe() -> dict[str, Any]:
    return {}
