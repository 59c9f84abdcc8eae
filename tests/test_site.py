"""The site builds without a warning, needs no network, and works in a browser."""

import functools
import http.server
import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_reference import DOCUMENTED, REFERENCE, is_hook, parameters_of

ROOT = Path(__file__).parents[1]
SECTIONS = ["Getting started", "User guide", "Examples", "API", "Benchmarks", "FAQ"]
MADE = shutil.ignore_patterns("_build", "generated", "auto_examples", "figures", "__pycache__")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Folder of the site, built from a copy without running the examples."""
    pytest.importorskip("sphinx_gallery")
    home = tmp_path_factory.mktemp("site")
    for folder in ("docs", "examples"):
        shutil.copytree(ROOT / folder, home / folder, ignore=MADE)
    for file in ROOT.glob("*.md"):
        shutil.copy(file, home)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "html"],
        cwd=home,
        env={**os.environ, "SKFOCAL_GALLERY": "0", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return home / "html"


@pytest.mark.slow
def test_site_builds_and_the_bar_has_the_sections(site):
    bar = (site / "index.html").read_text().partition('class="bd-navbar-elements')[2]
    places = [bar.index(f"{section}\n") for section in SECTIONS]
    assert places == sorted(places)


@pytest.mark.slow
def test_every_parameter_is_on_its_page(site):
    n_seen = 0
    for name, value in DOCUMENTED.items():
        owner = name if name in REFERENCE else name.rpartition(".")[0]
        page = (site / "api" / "generated" / f"{owner}.html").read_text()
        assert name.rpartition(".")[2] in page, name
        signature = set() if is_hook(name) else set(inspect.signature(value).parameters)
        named = signature if ".cli." in name else signature & parameters_of(value.__doc__)
        for parameter in named:
            n_seen += 1
            assert re.search(rf"<strong>[^<]*\b{parameter}\b", page), f"{parameter} of {name}"
    assert n_seen > 300


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site):
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]*src="(\w+:)?//|<link[^>]*rel="stylesheet"[^>]*//'
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    assert [page.name for page in pages if loads.search(page.read_text())] == []


@pytest.mark.slow
def test_no_page_has_markup_that_was_not_understood(site):
    for page in site.rglob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", page.read_text(), flags=re.S)
        text = re.sub(r"<[^>]+>", "", text)
        assert not re.search(r":(class|func|meth|mod):`|\]\([\w/.#-]+\)|```", text), page.name


# -- in a browser ----------------------------------------------------------------------------


class Silent(http.server.SimpleHTTPRequestHandler):
    """Answers without a word on standard error."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address(site):
    """Address of the site on a server of its own."""
    handler = functools.partial(Silent, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, address):
    """Return a function that opens a page, and fails at errors or at what does not load."""
    contexts, problems = [], []

    def open_page(name, width=1280, theme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.on("response", lambda r: problems.append(r.url) if r.status >= 400 else None)
        page.on("request", lambda r: None if r.url.startswith(address) else problems.append(r.url))
        page.goto(f"{address}/{name}", wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.mark.browser
def test_search_finds_gamma(visit):
    page = visit("search.html?q=gamma")
    page.wait_for_selector("#search-results li")
    page.wait_for_load_state("networkidle")  # the excerpts of what was found
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("gamma: the focal loss" in text for text in found)


PAGES = [
    "index.html",
    "gamma.html",
    "losses.html",
    "from-your-loop.html",
    "errors.html",
    "architecture.html",
    "api/index.html",
    "api/generated/skfocal.BertFocalClassifier.html",
    "benchmarks/index.html",
    "benchmarks/quality-r52-short.html",
    "auto_examples/index.html",
]


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_its_figures_load(name, width, theme, visit):
    page = visit(name, width, theme)
    inside = page.evaluate("""() => {
        const html = document.documentElement;
        const cut = [...document.querySelectorAll("article p, article dt, article h1, article li")]
            .filter(e => !e.closest("table, pre, [hidden]") && e.offsetParent !== null)
            .filter(e => e.getBoundingClientRect().right > html.clientWidth + 1)
            .map(e => e.textContent.slice(0, 60));
        const figures = [...document.images].map(i => { i.loading = "eager"; return i; })
            .filter(i => i.offsetParent !== null);
        return Promise.all(figures.map(i => i.decode().then(() => null, () => i.src)))
            .then(broken => [html.scrollWidth - html.clientWidth, cut, broken.filter(Boolean)]);
    }""")
    assert inside == [0, [], []]
    assert page.evaluate("document.documentElement.dataset.theme") == theme


@pytest.mark.browser
def test_every_link_within_the_site_leads_somewhere(site):
    anchors, n_links = {}, 0
    for page in site.rglob("*.html"):
        anchors[page] = set(re.findall(r'\bid="([^"]+)"', page.read_text()))
    for page in anchors:
        for link in re.findall(r'<a\b[^>]*\bhref="([^":]+)"', page.read_text()):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if page.name in ("search.html", "genindex.html") or not link.strip("#"):
                continue
            n_links += 1
            assert target.exists(), f"{page.name} links to {link}"
            assert not anchor or anchor in anchors.get(target, {anchor}), f"{page.name}: {link}"
    assert n_links > 3000
