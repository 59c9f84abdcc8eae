"""What a browser and a crawl find wrong with pages."""

import contextlib
import functools
import threading
import urllib.error
import urllib.request
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag, urljoin

SIZES = {
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    "desktop": {"viewport": {"width": 1280, "height": 800}},
}

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
OVERFLOW = """width => {
    const root = document.documentElement, body = document.body;
    const widest = Math.max(root.scrollWidth, body.scrollWidth);
    if (widest <= width) return [];
    const scrolls = node => node && node !== body && node !== root
        && (getComputedStyle(node).overflowX !== "visible" || scrolls(node.parentElement));
    const right = node => node.getBoundingClientRect().left + Math.max(
        node.getBoundingClientRect().width, node.scrollWidth);
    const wide = [...body.querySelectorAll("*")].filter(
        node => right(node) > width + 1 && !scrolls(node.parentElement));
    const names = wide.slice(-3).map(node => node.outerHTML.slice(0, 80));
    return [`${widest} pixels wide: ${names.join(" ... ")}`];
}"""


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *args):
        """Say nothing of browsers that leave before they have got all."""


@contextlib.contextmanager
def served(folder):
    """Serve a folder on the local host; yield its address."""
    handler = functools.partial(_Handler, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


# -- in the browser ------------------------------------------------------------------------


class Watched:
    """A page in a browser's context, and what goes wrong on it.

    Requests to addresses that do not begin with `home` go wrong, and are not sent.
    """

    def __init__(self, context, home):
        self.home = home
        self.found = []
        self.pending = set()
        context.route("**/*", self._route)
        self.page = page = context.new_page()
        page.on("pageerror", lambda error: self.found.append(f"raises {error}"))
        page.on("console", self._log)
        page.on("request", lambda request: self.pending.add(request))
        page.on("requestfinished", lambda request: self.pending.discard(request))
        page.on("requestfailed", self._fail)
        page.on("response", self._answer)

    def _route(self, route):
        if route.request.url.startswith((self.home, "data:", "blob:")):
            route.continue_()
        else:
            self.found.append(f"asks for {route.request.url[:200]}")
            route.abort()

    def _log(self, message):
        if message.type == "error":
            self.found.append(f"logs {message.text}")

    def _fail(self, request):
        self.pending.discard(request)
        # Whoever leaves a page gives up what it still asks for, such as its icon.
        if request.failure != "net::ERR_ABORTED":
            self.found.append(f"fails to get {request.url[:200]}")

    def _answer(self, response):
        if response.status >= 400:
            self.found.append(f"{response.status} {response.url}")

    def settle(self):
        """Wait until the page has all that it asked for."""
        self.page.wait_for_timeout(50)  # scripts may ask for more; "networkidle" takes 500
        while any(not r.url.startswith(("data:", "blob:")) for r in self.pending):
            self.page.wait_for_timeout(20)

    def open(self, address):
        """Open an address; return what is wrong with the page."""
        self.found.clear()
        self.pending.clear()
        self.page.goto(address)
        self.settle()
        self.found += [f"shows no {image}" for image in self.page.evaluate(BROKEN_IMAGES)]
        width = self.page.viewport_size["width"]
        self.found += [f"is {wide}" for wide in self.page.evaluate(OVERFLOW, width)]
        return self.found.copy()


@contextlib.contextmanager
def watched(browser, size, home, offline=False):
    """Yield an empty page that is watched."""
    context = browser.new_context(**SIZES[size], offline=offline)
    try:
        yield Watched(context, home)
    finally:
        context.close()


def troubles(browser, size, home, addresses, offline=False):
    """Return what is wrong with each page that is not right."""
    with watched(browser, size, home, offline) as tab:
        found = {address: tab.open(address) for address in addresses}
    return {address: wrong for address, wrong in found.items() if wrong}


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
