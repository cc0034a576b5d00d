"""The search page, with an engine of coloured squares: what the server sends, and what a real browser makes of it."""

import html
import io
import os
import re
from pathlib import Path
from urllib.parse import quote, urlencode, urljoin, urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.web.pages import mark
from stages.web.problems import Limits
from stages.web.server import Access, create_app
from tests.stages.browsable import write_browsable
from tests.stages.fake_finder import ITEMS, FakeFinder
from tests.stages.servers import call, running
from tests.worked_examples import each_example

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
SCRIPT = '<script src="/static/page.js" defer></script>'  # the only one
BOUNDARY = "picture-boundary"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    corpus = write_browsable(tmp_path_factory.mktemp("corpora") / "squares")
    limits = Limits(rate=1e6, body_bytes=1_000_000)
    with running(create_app(FakeFinder({"squares": corpus}), limits=limits)) as url:
        yield url


def get(url, path, status=200, **fields):
    """A page as text."""
    query = f"?{urlencode(fields)}" if fields else ""
    answered, data, headers = call(url, "GET", path + query, headers={"Accept": "text/html"})
    assert answered == status, data
    assert "default-src 'none'" in headers["Content-Security-Policy"] and "/nowhere" not in data.decode()
    return data.decode().replace(SCRIPT, "")


def tiles(page):
    """The texts under the pictures."""
    return [
        " ".join(html.unescape(re.sub("<[^>]*>", "", tile)).split())
        for tile in re.findall(r'<span class="under".*?</a>', page, re.DOTALL)
    ]


def message(page):
    return html.unescape(re.search(r'id="status"[^>]*>(.*?)</p>', page, re.DOTALL)[1])


def png(colour, size=(40, 30)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def upload(url, data, status=200, headers=None, **fields):
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="../x.png"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    answered, page, sent = call(url, "POST", "/", body, {**MULTIPART, "Accept": "text/html", **(headers or {})})
    if answered == 303:
        return get(url, f"/{sent['Location']}")
    assert answered == status, page
    return page.decode()


def test_words_find_items_with_their_details(url):
    page = get(url, "/", q="ein Quadrat das grün ist")
    assert message(page).startswith("5 results") and tiles(page)[0] == "1 · 1.000 A green square."
    assert "German" in page
    assert f"/media/squares?item={quote('green.jpg')}" in page
    assert message(get(url, "/")) == "5 items to search."


def test_filters_and_the_number_of_results_count_and_stay(url):
    page = get(url, "/", q="rot", k=2, corpus="squares", split="test", kind="image")
    assert len(tiles(page)) == 2 and "<option selected>squares" in page
    assert message(get(url, "/", q="rot", split="train")).startswith("Nothing was found")
    for k, count in (("0", 1), ("1000", 5)):
        assert len(tiles(get(url, "/", q="rot", k=k))) == count
    assert "k = " in message(get(url, "/", 422, q="rot", k="x"))


def href(page, part):
    """The first link with this in it."""
    return next(link for link in map(html.unescape, re.findall('href="([^"]*)"', page)) if part in link)


def test_more_results_are_a_link_away_and_an_item_knows_its_place_in_them(url):
    first = get(url, "/", q="red square", k=2)
    more = get(url, "/" + href(first, "offset="))
    assert [tile.split()[0] for tile in tiles(first) + tiles(more)] == list("12345") and "offset=" not in more
    assert message(more) == "Results 3 to 5" and 'data-here="?q=red+square&amp;k=5"' in more
    item = get(url, href(first, "rank=1"))
    assert "Previous result" not in item and "caption <mark>red</mark>.jpg" in item and "score 1.0000" in item
    item = get(url, href(item, "rank=2"))
    assert "Previous result" in item and href(item, "rank=3") and 'id="similar"' in item and href(item, "#result-2")


def test_originals_are_saved_and_their_paths_shown_only_on_this_machine(url, tmp_path):
    corpus = write_browsable(tmp_path / "squares")
    item = get(url, "/item/squares", item="red.jpg")
    status, data, headers = call(url, "GET", href(item, "/original/"))
    assert status == 200 and headers["Content-Disposition"] == 'attachment; filename="red.jpg"'
    assert Image.open(io.BytesIO(data)).size == (900, 600) and "squares/red.jpg</dd>" in item
    assert Image.open(io.BytesIO(call(url, "GET", "/media/squares?item=red.jpg&large=1")[1])).size == (900, 600)
    assert "/original/" not in get(url, "/item/squares", item="blue.jpg")  # it is gone
    with running(create_app(FakeFinder({"squares": corpus}), limits=Limits(), access=Access(is_local=False))) as other:
        assert "squares/red.jpg</dd>" not in get(other, "/item/squares", item="red.jpg")


@each_example("equal_words_are_marked", "query, marked")
def test_equal_words_are_marked(query, marked):
    text = mark("A cat, Bären, кот, 黒猫 & बिल्ली <b>", query)
    assert re.findall("<mark>(.*?)</mark>", text) == marked
    assert html.unescape(re.sub("</?mark>", "", text)) == "A cat, Bären, кот, 黒猫 & बिल्ली <b>"


def test_a_picture_finds_its_like(url):
    page = upload(url, png((50, 70, 210)))
    assert len(tiles(page)) == 5 and tiles(page)[0].endswith("A blue square.") and "data:image/jpeg;base64" in page
    item = get(url, href(page, "like"))
    assert "blue.jpg" in item and "/item/squares?like=" in href(item, "rank=2") and "Next result" in item
    name = re.search(r'name="like" value="(\w+)"', page)[1]  # the picture stays while one types
    composed = get(url, "/", like=name, q="rot")
    assert [tile.partition("A ")[2] for tile in tiles(composed)[:2]] == ["red square.", "blue square."]
    assert "data:image" not in get(url, "/" + href(composed, "?q=rot"))
    assert "write a few words" in message(get(url, "/", like="forgotten"))
    assert "cannot be searched" in message(upload(url, b"%!PS-Adobe-3.0 no picture"))
    assert "no picture yet" in message(upload(url, b""))
    assert "larger body" in message(upload(url, b"x" * 2_000_000, 413))
    assert call(url, "POST", "/", b"no form", MULTIPART)[0] == 400


def test_other_sites_can_neither_read_nor_send_forms(url):
    assert call(url, "GET", "/", headers={"Host": "photos.example"})[0] == 400
    for origin in ("http://photos.example", "null", url.replace("http", "https") + "1"):
        assert call(url, "POST", "/search", "{}", {"Origin": origin, "Content-Type": "application/json"})[0] == 403
    for site in ("cross-site", "same-site"):
        refused = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Content-Type": "application/json"}
        assert call(url, "POST", "/search", "{}", refused)[0] == 403
        assert call(url, "GET", "/media/squares?item=red.jpg", headers={"Sec-Fetch-Site": site})[0] == 403
        assert call(url, "GET", "/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"})[0] == 200
    assert "blue" in upload(url, png((50, 70, 210)), headers={"Origin": url, "Sec-Fetch-Site": "same-origin"})


def test_without_the_token_nothing_is_answered():
    with running(create_app(FakeFinder(), limits=Limits(), access=Access(is_local=False, token="sesame"))) as url:
        for path in ("/", "/?q=rot", "/health", "/media/squares?item=red.jpg", "/?token=other"):
            assert call(url, "GET", path)[0] == 401
        assert call(url, "GET", "/health", headers={"Authorization": "Bearer other"})[0] == 401
        assert call(url, "GET", "/health", headers={"Authorization": "Bearer sesame"})[0] == 200
        status, _, headers = call(url, "GET", "/?token=sesame&q=rot")
        assert (status, headers["Location"]) == (303, "?q=rot") and "HttpOnly" in headers["Set-Cookie"]
        cookie = headers["Set-Cookie"].split(";")[0]
        assert call(url, "GET", "/media/squares?item=red.jpg", headers={"Cookie": cookie})[0] == 200


def test_behind_a_proxy_it_answers_under_its_name_and_its_path(tmp_path):
    app = create_app(
        FakeFinder({"squares": write_browsable(tmp_path / "squares")}),
        limits=Limits(rate=1e6),
        access=Access(names=("find.example",), origins=("https://page.example",)),
        root_path="/photos",
    )
    with running(app) as url:
        for host, status in (("find.example", 200), ("find.example:8443", 200), ("other.example", 400)):
            assert call(url, "GET", "/", headers={"Host": host})[0] == status
        seen, paths = set(), {"/photos/?q=red&k=2"}
        while paths:  # every link of every page
            status, data, headers = call(url, "GET", path := paths.pop(), headers={"Host": "find.example"})
            assert status == 200, path
            seen.add(path)
            if headers.get_content_type() == "text/html":
                links = re.findall('(?:href|src|action)="([^"#]*)', data.decode())
                paths |= {urljoin(path, html.unescape(link)) for link in links if link and ":" not in link} - seen
        assert len(seen) > 20 and all(path.startswith("/photos/") for path in seen)
        assert call(url, "GET", "/", headers={"Host": "find.example"})[0] == 200  # a proxy may take its path away
        for origin, status in (
            ("https://find.example", 200),
            ("https://page.example", 200),
            ("https://other.example", 403),
        ):
            sent = {"Host": "127.0.0.1", "Origin": origin, "Content-Type": "application/json"}
            answered, _, headers = call(url, "POST", "/search", '{"query": "red"}', sent)
            allowed = headers.get("Access-Control-Allow-Origin")
            assert (answered, allowed) == (status, origin if origin == "https://page.example" else None)
        asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        assert call(url, "OPTIONS", "/search", headers=asked)[0] == 200
    create_app(FakeFinder(), limits=Limits())  # without a path again


def test_pictures_are_pixels_of_the_index_and_nothing_else(url):
    status, data, headers = call(url, "GET", "/media/squares?item=red.jpg")
    assert status == 200 and headers["Content-Type"] == "image/jpeg"
    colour = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).mean((0, 1))
    assert np.abs(colour - ITEMS["red.jpg"][0]).max() < 5
    assert Image.open(io.BytesIO(call(url, "GET", "/corpus/squares/figure/contact-sheet")[1])).size == (30, 20)


@each_example("no_path_reaches_the_disk", "path")
def test_no_path_reaches_the_disk(url, path):
    status, data, _ = call(url, "GET", path)
    assert status == 404 and b"root:" not in data


def test_a_corpus_is_browsed_page_by_page(url, monkeypatch):
    monkeypatch.setattr("stages.web.pages.PAGE_ITEMS", 2)
    pages = [get(url, "/corpus/squares", page_number=number) for number in ("1", "2", "3")]
    assert [len(re.findall('class="tile"', page)) for page in pages] == [2, 2, 1]
    assert "Page 2 of 3, 5 items" in pages[1] and 'rel="next"' not in pages[2] and 'rel="prev"' not in pages[0]
    for number, same in (("0", 0), ("99", 2), ("9" * 100, 2)):
        assert get(url, "/corpus/squares", page_number=number) == pages[same]
    item = get(url, "/item/squares", item="red.jpg")
    for text in ("objects of red.jpg", "caption red.jpg", "Bildunterschrift", "quality 0.75 · meaning 0.50", "copied"):
        assert text in item
    for path in ("/corpus/none", "/item/squares?item=none", "/item/none?item=red.jpg"):
        get(url, path, 404)


def test_a_card_has_no_markup_of_its_own_and_fetches_nothing(url, tmp_path):
    card = get(url, "/corpus/squares/card")
    assert "<h1>The squares</h1>" in card and "license: mit" not in card and "example.com" not in card
    assert "/corpus/squares/figure/contact-sheet" in card
    (tmp_path / "README.md").write_text(
        "# X\n<script>hit</script><svg onload=hit> [go](javascript:hit) ![x](http://a.example/x.png) <!-- made from -->"
    )
    with running(create_app(FakeFinder({"evil": tmp_path}), limits=Limits())) as evil:
        card = get(evil, "/corpus/evil/card")
    assert "made from" not in card
    assert "<script" not in card and "<svg" not in card and 'href="javascript' not in card and "a.example" not in card


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is not there (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield opened
        opened.close()


@pytest.mark.parametrize("size", [{"width": 1200, "height": 1000}, {"width": 390, "height": 800}])
def test_in_a_browser_the_keyboard_is_enough_and_nothing_is_fetched_from_elsewhere(browser, url, size):
    page = browser.new_page(viewport=size)
    page.set_default_timeout(60_000)
    asked, broken = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("response", lambda answer: answer.status >= 400 and broken.append(f"{answer.status} {answer.url}"))
    page.on("console", lambda line: line.type == "error" and broken.append(line.text))
    page.goto(url)
    page.locator("#q:focus").wait_for()
    page.keyboard.type("<img src=x onerror=window.hit=5> grau")
    page.keyboard.press("Enter")
    page.get_by_text("5 results").wait_for()
    page.locator("#result-1 a").press("Enter")
    page.get_by_text("result", exact=True).wait_for()
    assert "<script>window.hit=1</script>.jpg" in page.locator("h1").inner_text()
    for key, place in (("ArrowRight", "rank=2"), ("ArrowLeft", "rank=1"), ("Escape", "#result-1")):
        page.keyboard.press(key)
        page.wait_for_url(f"**{place}")
    page.keyboard.press("/")
    page.locator("#q:focus").wait_for()
    page.goto(f"{url}/?q=rot&k=2")  # the rest comes as one scrolls
    page.locator("#result-5").wait_for()
    page.wait_for_url("**/?q=rot&k=5")
    assert page.locator("#more").count() == 0 and "5 results" in page.locator("#status").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.get_by_role("link", name="squares").first.click()
    page.get_by_role("link", name="red.jpg").click()
    page.get_by_role("link", name="Search").first.click()
    page.get_by_text("Filters, and search with a picture").click()
    page.get_by_label("Picture").set_input_files(
        {"name": "x.png", "mimeType": "image/png", "buffer": png((50, 70, 210))}
    )
    page.get_by_role("button", name="Search with the picture").click()
    page.get_by_text("5 results").wait_for()
    assert "A blue square." in page.locator("#results li").first.inner_text()
    page.evaluate("document.querySelector('#results img').decode()")  # fails where it is not a picture
    assert page.evaluate("window.hit") is None and not broken
    assert {urlsplit(address).hostname for address in asked if not address.startswith("data:")} == {"127.0.0.1"}
    if folder := os.environ.get("PAGE_PICTURES"):
        page.screenshot(path=f"{folder}/page-{size['width']}.png", full_page=True)
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_every_page_is_accessible(browser, url, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    item = "/item/squares?item=red.jpg&q=red&rank=1"
    corpus = ("/corpus/squares", "/corpus/squares/card")
    for path in ("/", "/?q=rot&kind=image", "/?q=nothing", item, *corpus, "/docs", "/item/squares?item=none"):
        page.goto(url + path)
        results = axe.run(page)
        assert not results.violations_count, f"{path}: {results.generate_report()}"
    page.close()


ODD = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=2_500),
    st.text(st.sampled_from("אבג مرحبا\u200e\u200f\u202e😀👩\u200d👧\x00\x07\x1b\ufeff\u200b<>&'\"${}"), max_size=100),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=ODD)
def test_no_text_is_a_fault_or_markup(url, text):
    page = get(url, "/", q=text)
    assert "<script" not in page and "<img src=x" not in page and message(page)
