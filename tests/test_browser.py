"""The documentation, the report and the audit in headless Chromium on a phone and a desktop."""

import re
import shutil

import numpy as np
import pytest
from browsing import SIZES, crawl, served, troubles, watched

LOADED = "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=='>"

HEAD = (
    "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    "<link rel=icon href=data:,><title>t</title><p>text</p>"
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("These tests need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def home(site):
    """Address of the documentation."""
    with served(site) as address:
        yield address


@pytest.fixture(scope="session")
def crawled(home):
    """Addresses of all pages of the documentation, and its broken links."""
    return crawl(home)


def brightness(color):
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3


# -- the documentation ---------------------------------------------------------------------


def test_every_link_within_the_site_leads_somewhere(crawled):
    pages, broken = crawled
    assert len(pages) > 50
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("size", SIZES)
def test_pages_load_whole_and_fit_the_window(size, browser, home, crawled):
    wrong = troubles(browser, size, home, crawled[0])
    assert not wrong, "\n".join(f"{page}: {found}" for page, found in wrong.items())


@pytest.mark.parametrize("size", SIZES)
def test_search_finds_gamma(size, browser, home):
    with watched(browser, size, home) as tab:
        page = tab.page
        assert not tab.open(f"{home}index.html")
        page.locator(".search-button__button:visible").first.click()
        page.locator("input[name=q]:visible").first.fill("gamma")
        page.keyboard.press("Enter")
        hits = page.locator("#search-results li > a")
        hits.nth(2).wait_for()
        tab.settle()  # it gets a few lines of each page that it found
        assert not tab.found
        pages = [re.sub(r"[?#].*", "", hit.get_attribute("href")) for hit in hits.all()[:3]]
        assert "gamma.html" in pages
        hits.nth(pages.index("gamma.html")).click()
        page.wait_for_url(lambda url: url.startswith(f"{home}gamma.html"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_site_has_the_theme_of_the_system(theme, browser, home):
    with watched(browser, "phone", home) as tab:
        tab.page.emulate_media(color_scheme=theme)
        assert not tab.open(f"{home}architecture.html")
        assert tab.page.evaluate("document.documentElement.dataset.theme") == theme
        back = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (brightness(back) > 128) == (theme == "light")


# -- the report ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tiny, tmp_path_factory):
    """File of the report of a fitted classifier."""
    from conftest import imbalanced

    from skfocal import BertFocalClassifier

    X, y = imbalanced()
    X[0] = "win <script>alert(1)</script> <img src='https://example.org/x.png'> " + "m" * 300
    clf = BertFocalClassifier(tiny, max_epochs=2, train_split=0.3, random_state=0).fit(X, y)
    path = tmp_path_factory.mktemp("report") / "report.html"
    clf.report(X, y).save(path)
    return path


@pytest.fixture(scope="module")
def audit_page(tiny, tmp_path_factory):
    """Page of an audit of documents with all kinds of trouble."""
    from conftest import imbalanced

    from skfocal import audit

    X, y = imbalanced(60, 20)
    evil = "<script>alert(1)</script> <img src='https://example.org/x.png'> " + "m" * 300
    X += [evil, f"{evil} again", X[0].upper(), "", "win", "m" * 900]
    y = [*y, "ham", "spam", "spam", "ham", "Spam ", "a label " * 20]
    path = tmp_path_factory.mktemp("audit") / "audit.html"
    audit(X, y, [X[0], "other"], ["ham", "eggs"], model=tiny, max_length=8).save(path)
    return path


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_audit_is_whole_without_a_network(size, theme, browser, audit_page):
    home = audit_page.as_uri()
    with watched(browser, size, home, offline=True) as tab:
        page = tab.page
        page.emulate_media(color_scheme=theme)
        assert not tab.open(home)
        assert page.locator("details.part").count() == 10
        figures = page.locator("svg").all()
        assert [figure.get_attribute("role") for figure in figures] == ["img", "img"]
        assert all(len(figure.get_attribute("aria-label")) > 60 for figure in figures)
        assert all(figure.bounding_box()["height"] > 150 for figure in figures)
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.locator("svg text").first.evaluate("e => getComputedStyle(e).fill")
        assert (brightness(back) < brightness(ink)) == (theme == "dark")


@pytest.mark.parametrize("size", SIZES)
def test_the_report_needs_no_network(size, browser, report):
    assert not troubles(browser, size, report.as_uri(), [report.as_uri()], offline=True)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_report_shows_figures_in_the_inks_of_the_theme(size, theme, browser, report):
    with watched(browser, size, report.as_uri(), offline=True) as tab:
        page = tab.page
        page.emulate_media(color_scheme=theme)
        assert not tab.open(report.as_uri())
        page.locator("details.part > summary").last.click()
        figures = page.locator("svg").all()
        assert len(figures) >= 4
        assert all(figure.bounding_box()["height"] > 150 for figure in figures)
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.locator("svg text").first.evaluate("e => getComputedStyle(e).fill")
        assert (brightness(back) < brightness(ink)) == (theme == "dark")


# -- two classifiers compared --------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(report, tmp_path_factory):
    """File of a comparison of two classifiers, with long names and documents of markup."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    from skfocal import compare_classifiers

    rng = np.random.RandomState(0)
    y = np.array(
        [f"a class with a long name, {'m' * 30 * (i % 3 == 0)} {i % 9}" for i in range(180)]
    )
    X = [f"<img src=x> word{int(label[-1])} word{rng.randint(9)} {'w' * 200}" for label in y]
    models = [
        make_pipeline(TfidfVectorizer(), m).fit(X[::2], y[::2])
        for m in (MultinomialNB(), LogisticRegression())
    ]
    path = tmp_path_factory.mktemp("compare") / "compare.html"
    compare_classifiers(*models, X, y, names=("bayes" * 10, "logistic <b>")).save(path)
    return path


@pytest.mark.parametrize("page", ["report", "compared"])
@pytest.mark.parametrize("size", SIZES)
def test_figures_have_texts_that_say_numbers(page, size, browser, request):
    path = request.getfixturevalue(page)
    with watched(browser, size, path.as_uri(), offline=True) as tab:
        assert not tab.open(path.as_uri())
        figures = tab.page.get_by_role("img").all()
        assert len(figures) == (8 if page == "report" else 1)
        for figure in figures:
            assert re.search(r"\d", figure.get_attribute("aria-label"))
            assert figure.bounding_box()["height"] > 80


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_comparison_needs_no_network_and_follows_the_theme(size, theme, browser, compared):
    with watched(browser, size, compared.as_uri(), offline=True) as tab:
        page = tab.page
        page.emulate_media(color_scheme=theme)
        assert not tab.open(compared.as_uri())
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.locator("svg text").first.evaluate("e => getComputedStyle(e).fill")
        assert (brightness(back) < brightness(ink)) == (theme == "dark")
        for title in ("All documents", "Classes", "Documents that changed sides"):
            assert page.locator("h2", has_text=title).is_visible()


# -- an explanation ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explanation(minilm, tmp_path_factory):
    """File of the explanation of documents with a word for each class, and of hard ones."""
    from conftest import imbalanced

    from skfocal import BertFocalClassifier

    clf = BertFocalClassifier(minilm, max_epochs=3, lr=3e-4, batch_size=8, random_state=0)
    clf.fit(*imbalanced())
    evil = "lunch <script>alert(1)</script> <img src='https://example.org/x.png'> " + "m" * 300
    path = tmp_path_factory.mktemp("explanation") / "page.html"
    clf.explain(["win money prize at lunch", evil, ""], "spam").save(path)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_an_explanation_needs_no_network(size, browser, explanation):
    page = explanation.as_uri()
    assert not troubles(browser, size, page, [page], offline=True)


@pytest.mark.parametrize("medium", ["light", "dark", "print"])
def test_marks_can_be_told_apart_without_colours(medium, browser, explanation):
    with watched(browser, "phone", explanation.as_uri(), offline=True) as tab:
        page = tab.page
        if medium == "print":
            page.emulate_media(media="print")
        else:
            page.emulate_media(color_scheme=medium)
        assert not tab.open(explanation.as_uri())
        style = "e => { const s = getComputedStyle(e); return [s.textDecorationStyle, s.color] }"
        speaks_for = page.locator("li .text mark[class^=for]").first.evaluate(style)
        against = page.locator("li .text mark[class^=against]").first.evaluate(style)
        assert (speaks_for[0], against[0]) == ("solid", "dashed")
        back = page.locator("li").first.evaluate("e => getComputedStyle(e).backgroundColor")
        contrast = brightness(speaks_for[1]) - brightness(back)
        assert abs(contrast) > 150 and (contrast > 0) == (medium == "dark")


# -- what is wrong would be found ----------------------------------------------------------

DEFECTS = {
    "an error in the console": ("<script>console.error('bad')</script>", "logs bad"),
    "an exception": ("<script>null.x</script>", "raises "),
    "an image that is not there": ("<img src=missing.png>", "shows no http"),
    "one far below": (
        "<p style='height: 9000px'><img loading=lazy src=missing.png>",
        "shows no http",
    ),
    "a file that is no image": ("<img src=index.html>", "shows no http"),
    "a style sheet that is not there": ("<link rel=stylesheet href=missing.css>", "404 http"),
    "a request from a script": ("<script>fetch('missing')</script>", "404 http"),
    "a foreign script": ("<script src=https://example.org/x.js></script>", "asks for https"),
    "a foreign font": (
        "<style>@font-face {font-family: F; src: url(//example.org/f)} p {font-family: F}</style>",
        "asks for http://example.org/f",
    ),
    "a wide block": ("<div style='width: 1500px'>wide", "is 1508 pixels wide: <div style"),
    "a long word": (f"<p>{'m' * 300}", "pixels wide: <p>mmm"),
}
RIGHT = {
    "an image": LOADED,
    "a table that scrolls": "<div style='overflow: auto'><p style='width: 1500px'>wide</div>",
    "a message": "<script>console.log('fine')</script>",
}


def write(folder, **pages):
    for name, body in pages.items():
        (folder / f"{name}.html").write_text(HEAD + body)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("body, expected", DEFECTS.values(), ids=DEFECTS)
def test_a_broken_page_is_noticed(body, expected, size, browser, tmp_path):
    write(tmp_path, index=body)
    with served(tmp_path) as home:
        (found,) = troubles(browser, size, home, [home]).values()
    assert any(expected in trouble for trouble in found), found


@pytest.mark.parametrize("body", RIGHT.values(), ids=RIGHT)
def test_a_right_page_is_not(body, browser, tmp_path):
    write(tmp_path, index=body)
    with served(tmp_path) as home:
        assert troubles(browser, "phone", home, [home]) == {}


def test_a_page_that_a_phone_scales_down_is_noticed(browser, tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html><link rel=icon href=data:,><p>text")
    with served(tmp_path) as home:
        assert troubles(browser, "desktop", home, [home]) == {}
        assert "980 pixels wide" in str(troubles(browser, "phone", home, [home]))


def test_a_file_that_asks_for_others_is_noticed(browser, tmp_path):
    write(tmp_path, report=f"{LOADED}<script src=other.js></script>", right=LOADED)
    for name in ("report", "right"):
        page = (tmp_path / f"{name}.html").as_uri()
        found = troubles(browser, "phone", page, [page], offline=True)
        assert bool(found) == (name == "report")


def test_broken_links_are_noticed(tmp_path):
    write(
        tmp_path,
        index="<a href=other.html>a</a><a href='other.html#here'>b</a><a href=#>c</a>"
        "<a href='other.html#caf%C3%A9'>d</a><a href=https://example.org>e</a><a href=t.txt>f</a>",
        other="<b id=here></b><b id=café></b><a href=gone.html>a</a>"
        "<a href='index.html#nowhere'>b</a><a href=third.html>c</a>",
        third="<a href=gone.txt>a</a>",
    )
    (tmp_path / "t.txt").write_text("text")
    with served(tmp_path) as home:
        pages, broken = crawl(home)
    names = {page.removeprefix(home) for page in pages}
    assert names == {"", "index.html", "other.html", "third.html"}
    assert sorted(link.split(" links to ")[1].split(":")[0] for link in broken) == [
        "gone.html",
        "gone.txt",
        "index.html#nowhere",
    ]
