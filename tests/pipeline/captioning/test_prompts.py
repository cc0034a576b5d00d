import pytest

from pipeline.captioning.captioners import question
from pipeline.captioning.prompts import BUILT_IN, DEFAULT_VIEWS, View, parse_views
from pipeline.errors import UsageError
from tests.worked_examples import each_example


def test_a_file_defines_and_redefines_views(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "colours: {prompt: 'Name the colours in this {media}.', max_tokens: 64, temperature: 0.5}\n"
        "short: {prompt: Say.}"
    )
    assert len(parse_views(DEFAULT_VIEWS)) == 5
    views = parse_views(f"detail,{tmp_path}/mine.yaml")
    assert [view.name for view in views] == ["detail", "colours", "short"]
    assert views[1] == View("colours", "Name the colours in this {media}.", 64, 0.5)
    assert views[2].prompt_id != BUILT_IN["short"].prompt_id


@each_example("mistakes_in_a_file_are_reported", "content, message")
def test_mistakes_in_a_file_are_reported(tmp_path, content, message):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UsageError, match=message):
        parse_views(str(tmp_path / "mine.yaml"))


@each_example("a_view_expects_the_language_that_its_prompt_names_or_is_in", "prompt, language")
def test_a_view_expects_the_language_that_its_prompt_names_or_is_in(prompt, language):
    view = View("mine", prompt)
    assert view.answer_language == language
    assert View("mine", prompt, language="cs").answer_language == "cs"
    assert "language" not in view.settings()  # as in corpora from before


@pytest.mark.parametrize(("text", "message"), [("shrt", "did you mean short"), ("", "at least one view")])
def test_mistakes_on_the_command_line_are_reported(text, message):
    with pytest.raises(UsageError, match=message):
        parse_views(text)


def test_a_video_is_asked_of_with_the_times_of_its_frames():
    view = View("short", "Describe this {media}.")
    assert question(view, []) == "Describe this picture."
    asked = question(view, [0.5, 1.25])
    assert asked.startswith("These 2 pictures are frames of one video, in order, taken at 0.5 s, 1.2 s.")
    assert asked.endswith("Describe this video.")
