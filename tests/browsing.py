"""What a browser and a crawl find wrong with pages."""

import contextlib
import functools
import threading
import urllib.error
import urllib.request
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag, urljoin

SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}

# Images that wait until they are scrolled to are loaded first.
BROKEN_IMAGES = """async () => {
    const images = [...document.images];
    await Promise.all(images.map(image => {
        image.loading = "eager";
        return image.complete || new Promise(done => { image.onload = image.onerror = done });
    }));
    return images.filter(image => !image.naturalWidth).map(image => image.src.slice(0, 200));
}"""

# What is wider than the window, unless it can be scrolled by itself, as tables and code are.
OVERFLOW = """() => {
    const width = document.documentElement.clientWidth;
    const widest = Math.max(document.documentElement.scrollWidth, document.body.scrollWidth);
    if (widest <= width) return [];
    const scrolls = node => node && node !== document.body && node !== document.documentElement
        && (getComputedStyle(node).overflowX !== "visible" || scrolls(node.parentElement));
    const wide = [...document.body.querySelectorAll("*")].filter(
        node => node.getBoundingClientRect().right > width + 1 && !scrolls(node.parentElement));
    const names = wide.slice(-3).map(node => node.outerHTML.slice(0, 80));
    return [`${widest} pixels wide: ${names.join(" ... ")}`];
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def served(folder):
    """Serve a folder on the local host; yield its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


# -- in the browser ------------------------------------------------------------------------


@contextlib.contextmanager
def watched_page(browser, size, home, offline=False):
    """Open an empty page; yield it with the list that gets what goes wrong on it.

    Requests to addresses that do not begin with `home` are such, and are not sent.
    """
    found = []

    def route(route):
        if route.request.url.startswith((home, "data:", "blob:")):
            route.continue_()
        else:
            found.append(f"asks for {route.request.url[:200]}")
            route.abort()

    context = browser.new_context(viewport=SIZES[size], offline=offline)
    try:
        context.route("**/*", route)
        page = context.new_page()
        page.on("pageerror", lambda error: found.append(f"raises {error}"))
        page.on("requestfailed", lambda request: found.append(f"fails to get {request.url[:200]}"))
        page.on("console", lambda m: found.append(f"logs {m.text}") if m.type == "error" else None)
        page.on("response", lambda r: found.append(f"{r.status} {r.url}") if not r.ok else None)
        yield page, found
    finally:
        context.close()


def look_at(page, address, found):
    """Open an address and add what is wrong with the page to what was `found`."""
    page.goto(address, wait_until="load")
    found += [f"shows no {image}" for image in page.evaluate(BROKEN_IMAGES)]
    found += [f"is {wide}" for wide in page.evaluate(OVERFLOW)]
    page.wait_for_load_state("networkidle")


def troubles(browser, size, home, addresses, offline=False):
    """Return what is wrong with each page that is not right."""
    wrong = {}
    with watched_page(browser, size, home, offline) as (page, found):
        for address in addresses:
            look_at(page, address, found)
            if found:
                wrong[address] = found.copy()
                found.clear()
    return wrong


# -- without one ---------------------------------------------------------------------------


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.anchors, self.links = {"", "top"}, []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs.get("id"), attrs.get("name") if tag == "a" else None}
        if tag in ("a", "area") and attrs.get("href") is not None:
            self.links.append(attrs["href"])


def _read(address):
    """Return the links and anchors of a page, None for what is none, or the error's text."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            if answer.headers.get_content_type() != "text/html":
                return None
            page = _Links()
            page.feed(answer.read().decode())
            return page
    except urllib.error.URLError as error:
        return str(error)


def crawl(home):
    """Follow the links from `home` that stay below it.

    Returns
    -------
    pages, broken : list of str, list of str
        Addresses of pages, and what is wrong with links of theirs.
    """
    pages, waiting, links = {}, [home], []
    while waiting:
        address = waiting.pop()
        if address in pages:
            continue
        pages[address] = page = _read(address)
        for link in page.links if isinstance(page, _Links) else ():
            target, anchor = urldefrag(urljoin(address, link))
            if target.startswith(home):
                links.append((address, link, target, unquote(anchor)))
                waiting.append(target)
    broken = []
    for address, link, target, anchor in links:
        page = pages[target]
        if isinstance(page, str):
            broken.append(f"{address} links to {link}: {page}")
        elif page is not None and anchor not in page.anchors:
            broken.append(f"{address} links to {link}: no such place in the page")
    return [address for address, page in pages.items() if isinstance(page, _Links)], broken
