"""Twenty-one messages that between them need every case, gender and agreement: each language has them by hand."""

from pipeline.sources.scenes.content import Group
from pipeline.sources.scenes.languages import caption
from pipeline.sources.scenes.messages import Message


def group(text):
    """`2 red cars` in short: `2 red car`, with the size where it is said: `2 small red car`."""
    count, *rest = text.split()
    size, colour, kind = rest if len(rest) == 3 else ("small", *rest)
    return Group(kind, colour, size, int(count))


def told(form, *groups, **facts):
    sized = any(len(text.split()) == 4 for text in groups)
    return Message(form, tuple(map(group, groups)), sized, **facts)


MESSAGES = [
    told("related", "2 red car", "1 blue ball", relation="left"),
    told("related", "1 large white bird", "2 small yellow apple", relation="above"),
    told("related_there", "1 black hat", "1 orange star", relation="right", background="beach"),
    told("listed", "3 green fish", "1 purple umbrella", background="snow"),
    told("shown", "1 red bird", "1 yellow fish"),
    told("shown", "2 large blue bird"),
    told("placed", "1 orange apple", place="left"),
    told("placed", "4 small white mushroom", place="middle"),
    told("there", "2 black house", background="night"),
    told("there", "1 yellow boat", background="water"),
    told("moving", "3 small red fish", motion="left"),
    told("moving_there", "1 green car", background="street", motion="up"),
    told("passing", "1 black bird", "4 white tree", relation="above", motion="right"),
    told("related", "3 large purple flower", "3 small orange cup", relation="below"),
    told("related_there", "2 green bird", "1 red tree", relation="left", background="meadow"),
    told("related", "1 green umbrella", "1 white star", relation="right"),
    told("related", "1 red cup", "1 yellow flower", relation="below"),
    told("shown", "1 white house", "1 blue flower"),
    told("related", "4 large red bird", "4 small white boat", relation="left"),
    told("beside", "2 small purple hat", "1 black boat", relation="beside"),
    told("beside", "1 yellow fish", "3 green bird", relation="beside"),
]


def check(language, expected):
    sentences = [line.strip() for line in expected.strip().splitlines()]
    assert [caption(message, language) for message in MESSAGES] == sentences
