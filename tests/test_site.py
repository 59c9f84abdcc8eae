"""The site builds without a warning and needs no network."""

import inspect
import re

import pytest
from test_reference import DOCUMENTED, REFERENCE, is_hook, parameters_of

SECTIONS = ["Getting started", "User guide", "Examples", "API", "Benchmarks", "FAQ"]


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


# Any tag but a link that one clicks, and what scripts and style sheets import.
ELSEWHERE = re.compile(
    r"""<(?!a\b)\w[^>]*\s(?:src|href)=["']?(?:\w+:)?//|\bimport\b[\s\w{},*]*["'(]+(?:\w+:)?//"""
)


@pytest.mark.parametrize(
    "markup",
    [
        '<script src="https://example.org/x.js"></script>',
        "<img alt='' src=//example.org/x.png>",
        '<link rel="stylesheet" href="https://example.org/x.css">',
        '<link href="https://example.org/x.css" rel="stylesheet">',
        '<link rel="preload" as="font" href="//example.org/x.woff2">',
        '<script type="module">import "https://example.org/x.js"</script>',
        '<script type="module">import {a, b} from "https://example.org/x.js"</script>',
        '<script>import("https://example.org/x.js")</script>',
        "<style>@import url(//example.org/x.css)</style>",
    ],
)
def test_what_loads_from_elsewhere_is_noticed(markup):
    assert ELSEWHERE.search(markup)


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    assert [page.name for page in pages if ELSEWHERE.search(page.read_text())] == []


@pytest.mark.slow
def test_no_page_has_markup_that_was_not_understood(site):
    for page in site.rglob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", page.read_text(), flags=re.S)
        text = re.sub(r"<[^>]+>", "", text)
        assert not re.search(r":(class|func|meth|mod):`|\]\([\w/.#-]+\)|```", text), page.name
