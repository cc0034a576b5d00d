"""The search page in a real browser, with an engine of coloured squares. PAGE_PICTURE=FILE keeps a picture of it."""

import contextlib
import json
import os
import re
import socketserver
import threading
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.page import create_app, private_cache
from stages.web.page_guard import EVENT, served
from tests.stages.browsable import write_browsable
from tests.stages.fake_finder import ITEMS, FakeFinder
from tests.stages.servers import call, running

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--headless",
)
PATIENCE_MS = 60_000
gradio = pytest.importorskip("gradio", reason="gradio is not installed")


@pytest.fixture(scope="module")
def served_page(tmp_path_factory):
    """(address, cache folder) of the page over an engine and a corpus on disk."""
    corpus = write_browsable(tmp_path_factory.mktemp("corpora") / "squares")
    finder = FakeFinder({"squares": corpus})
    with private_cache() as cache, running(create_app(finder, cache)) as url:
        yield url, cache


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is not there (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def context(browser):
    """One for all tests: what the page is made of is then fetched once."""
    opened = browser.new_context(viewport={"width": 1200, "height": 1000})
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    opened.close()


@pytest.fixture
def page(context, served_page):
    """The page, opened. At the end: nothing left this machine, no script of a text ran, nothing broke."""
    asked, broken = [], []
    opened = context.new_page()
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: broken.append(str(error)))
    opened.on("response", lambda answer: answer.status >= 400 and broken.append(f"{answer.status} {answer.url}"))
    opened.goto(served_page[0])
    opened.wait_for_selector("#query input, #query textarea")
    yield opened
    assert opened.evaluate("window.hit") is None
    assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
    assert not broken
    opened.close()


def box(page):
    return page.locator("#query input, #query textarea")


def search(page, text):
    box(page).fill(text)
    box(page).press("Enter")


def says(page, where, text):
    page.locator(where).get_by_text(text).first.wait_for()


def captions(page, where="#results"):
    return page.locator(f"{where} .caption-label").all_inner_texts()


def first_colour(page):
    """Of the first result's picture, at its middle, as the browser shows it."""
    page.wait_for_function("document.querySelector('#results img')?.complete")
    return page.evaluate("""() => {
        const image = document.querySelector('#results img'), canvas = document.createElement('canvas');
        canvas.width = canvas.height = 1;
        canvas.getContext('2d').drawImage(image, 0, 0, 1, 1);
        return [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data].slice(0, 3);
    }""")


def near(colour, wanted):
    return max(abs(got - want) for got, want in zip(colour, wanted, strict=True)) < 12


def test_a_german_query_shows_the_right_picture_first(page):
    search(page, "ein Quadrat das grün ist")
    says(page, "#status", "5 results")
    assert captions(page)[0].startswith("1 · 1.000 · A green square.")
    assert near(first_colour(page), ITEMS["green.jpg"][0])
    under, thumbnail = (page.locator(f"#results {part}").first.bounding_box() for part in (".caption-label", "button"))
    assert under["height"] > 10 and thumbnail["y"] < under["y"] < thumbnail["y"] + thumbnail["height"] - 10
    says(page, "#language", "German")
    says(page, "#chosen", "Matched")
    says(page, "#chosen", "objects of green.jpg")  # the item's other description, read from its corpus
    if where := os.environ.get("PAGE_PICTURE"):
        picture(page, Path(where))


def picture(page, path):
    page.screenshot(path=path, full_page=True)


def test_a_picture_finds_its_like_and_what_is_none_is_told(page, tmp_path):
    Image.new("RGB", (40, 30), (50, 70, 210)).save(tmp_path / "mine.png")
    (tmp_path / "none.png").write_bytes(b"%!PS-Adobe-3.0 no picture")
    page.get_by_text("Find what resembles a picture").click()
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "mine.png")
    says(page, "#status", "5 results")
    assert captions(page)[0].endswith("A blue square.") and near(first_colour(page), ITEMS["blue.jpg"][0])
    search(page, "rot")  # words come first, and a picture is searched with again where there are none
    says(page, "#chosen", "A red square.")
    search(page, "")
    says(page, "#chosen", "A blue square.")
    page.locator("#upload button[aria-label='Remove this file'], #upload button[aria-label='Clear']").first.click()
    says(page, "#status", "Nothing to search for yet")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "none.png")
    says(page, "#status", "no picture of a known format")
    assert captions(page) == []


@pytest.mark.parametrize(
    ("query", "told"),
    [("   ", "Nothing to search for yet"), ("nothing", "Nothing was found"), ("refuse", "could not be")],
)
def test_what_gives_no_result_is_told(page, query, told):
    search(page, "rot")
    says(page, "#status", "5 results")
    search(page, query)
    says(page, "#status", told)
    page.wait_for_function("!document.querySelector('#results img')")
    assert page.locator("#chosen").inner_text().strip() == ""
    assert "/nowhere" not in page.content()


def test_markup_in_queries_captions_and_ids_is_text(page):
    search(page, "<script>window.hit=4</script><img src=x onerror=window.hit=5> ${window.hit=6} grau")
    says(page, "#status", "5 results")
    assert "<img src=x onerror=window.hit=2>" in captions(page)[0]
    says(page, "#chosen", "<script>window.hit=1</script>.jpg")
    says(page, "#chosen", "${7*7} {{7*7}}")
    assert page.locator("#chosen script, #chosen img").count() == 0


def tab_to(page, where, key="Tab"):
    """Moves the focus with the keyboard to the first thing that `where`, of JavaScript's `it`, tells."""
    for _ in range(60):
        page.keyboard.press(key)
        if page.evaluate(f"(it => {where})(document.activeElement)"):
            return
    pytest.fail(f"the keyboard did not come to {where}")


def test_the_keyboard_is_enough(page):
    tab_to(page, "it.closest('#query')")
    page.keyboard.type("blau")
    page.keyboard.press("Enter")
    says(page, "#status", "5 results")
    tab_to(page, "it.getAttribute('aria-label') == 'Thumbnail 2 of 5'")
    page.keyboard.press("Enter")
    says(page, "#chosen", "Result 2")
    tab_to(page, "it.getAttribute('role') == 'tab' && it.innerText.trim() == 'Corpus'", "Shift+Tab")
    page.keyboard.press("Enter")
    says(page, "#corpus-status", "Page 1 of 1")


def test_a_filter_and_the_number_of_results_count(page):
    page.get_by_text("Find what resembles a picture").click()
    number = page.get_by_label("number input for Results")
    for _ in range(50):  # what is typed while the page is still being put together, it forgets
        number.fill("2")
        number.press("Enter")
        page.wait_for_timeout(100)
        if page.evaluate("[...document.querySelectorAll('input[type=range]')].some(it => it.value == 2)"):
            break
    search(page, "rot")
    says(page, "#status", "2 results")
    page.get_by_label("Split").click()
    page.get_by_role("option", name="train").click()
    search(page, "rot")
    says(page, "#status", "Nothing was found")


def test_a_corpus_is_browsed(page):
    page.get_by_role("tab", name="Corpus").click()
    says(page, "#corpus-status", "Page 1 of 1; 5 items")
    assert len(captions(page, "#items")) == 5
    page.locator("#items button").nth(3).click()
    says(page, "#item", "<script>window.hit=1</script>.jpg")
    for text in ("objects of", "caption <script>", "Bildunterschrift", "quality 0.75 · meaning 0.50", "copied"):
        says(page, "#item", text)
    page.locator("#after").click()
    says(page, "#corpus-status", "Page 1 of 1")


def test_a_card_is_shown_with_its_figures(page):
    page.get_by_role("tab", name="Card").click()
    says(page, "#card", "The squares")
    page.locator("img[src*='image.']:visible").first.wait_for()
    assert "license: mit" not in page.locator("#card").inner_text()


def test_markup_that_got_in_would_fetch_nothing(browser, served_page):
    with noting() as (elsewhere, asked):
        opened = browser.new_page()
        opened.goto(served_page[0])
        opened.evaluate(
            """address => new Promise(done => {
                const image = new Image();
                image.onload = image.onerror = done;
                image.src = `${address}/x.png`;
                document.body.append(image);
            })""",
            elsewhere,
        )
        opened.close()
    assert asked == []


@contextlib.contextmanager
def noting():
    """(address, list) of a server that notes what it is asked."""
    asked = []

    class Noting(socketserver.BaseRequestHandler):
        def handle(self):
            asked.append(self.request.recv(100))

    with socketserver.TCPServer(("127.0.0.1", 0), Noting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/file=README.md",
        "/gradio_api/file={cache}/../../etc/passwd",
        "/gradio_api/file={cache}/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file={cache}%2f..%2f..%2fetc%2fpasswd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file=/nowhere/squares/red.jpg",
        "/assets/../../../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%2f..%2f..%2fetc/passwd",
        "/svelte//etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/custom_component/x/client/component/..%2fetc",
        "/gradio_api/run/by_text",
        "/gradio_api/call/by_text",
        "/gradio_api/vibe-code/",
        "/monitoring",
        "/docs",
        "/gradio_api/openapi.json",
        "/assets//etc/passwd",
        "/gradio_api/file=C:\\Windows\\win.ini",
    ],
)
def test_no_path_leads_out_of_the_page(served_page, path):
    url, cache = served_page
    for method in ("GET", "POST"):
        status, body, _ = call(url, method, path.replace("{cache}", str(cache)))
        assert status >= 400 and b"root:" not in body, (method, path, status)


def test_files_are_those_of_the_cache_alone(tmp_path):
    assert served(f"/gradio_api/file={tmp_path}/a/image.jpeg", tmp_path)
    assert not served(f"/gradio_api/file={tmp_path}/../x", tmp_path)
    assert not served(f"/gradio_api/file={tmp_path}x/image.jpeg", tmp_path)
    assert not served("/gradio_api/file=image.jpeg", tmp_path)


def test_another_sites_name_for_this_machine_is_refused(served_page):
    assert call(served_page[0], "GET", "/", headers={"Host": "photos.example"})[0] == 400


def event(url, function, data):
    """What Gradio answers to an event of the page, sent without the page."""
    body = call(url, "GET", "/config")[1]
    names = json.loads(body)["dependencies"]
    found = next(one for one in names if function(one))
    joined = {"data": data, "fn_index": found["id"], "session_hash": "test", "event_data": None, "trigger_id": None}
    headers = {"Content-Type": "application/json"}
    status = call(url, "POST", "/gradio_api/queue/join", json.dumps(joined), headers)[0]
    if status != 200:
        return f"refused {status}"
    return call(url, "GET", "/gradio_api/queue/data?session_hash=test")[1].decode()


def by_text(found):
    return len(found["inputs"]) == 6 and [name for _, name in found["targets"]] == ["submit"]


def by_picture(found):
    return len(found["inputs"]) == 5 and [name for _, name in found["targets"]] == ["upload"]


def test_an_event_that_names_a_file_or_an_address_reads_neither(served_page, tmp_path):
    url, cache = served_page
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8), "red").save(secret)
    with noting() as (elsewhere, asked):
        for path in (str(secret), "/etc/passwd", f"{elsewhere}/x.png", f"{cache}/../../etc/passwd", "stages/page.py"):
            file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.png"}
            for function, values in (
                (by_picture, [file]),
                (by_text, ["rot", file]),
                (by_text, [file, None]),
                (by_text, [[{"deep": file}], None]),
            ):
                assert event(url, function, [*values, "", "", "", 10]) == "refused 403"
    assert asked == [] and not list(cache.rglob("passwd")) and not list(cache.rglob("secret.png"))
    assert call(url, "POST", EVENT, "x" * 2_000_000)[0] == 413
    assert call(url, "POST", EVENT, "[" * 200_000)[0] == 400


ODD = st.one_of(
    st.text(max_size=2_500),
    st.text(st.sampled_from("אבג مرحبا\u200e\u200f\u202e😀👩\u200d👧\x00\x07\x1b\ufeff\u200b<>&'\"${}"), max_size=100),
    st.sampled_from(["😀" * 2_000, "\u202e" * 5_000, "x" * 10_000]),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ODD)
def test_no_text_is_a_fault_of_the_page(served_page, text):
    told = event(served_page[0], by_text, [text, None, "", "", "", 5])
    assert re.search(r"process_completed.*\"success\": ?true", told), told[:500]
    assert "role=" in told


def test_a_query_in_an_address_changes_nothing(served_page):
    assert call(served_page[0], "GET", f"/?q={quote('<script>window.hit=1</script>')}")[0] == 200
