"""Sphinx configuration; ``sphinx-build -W -b html docs docs/_build/html`` builds the site."""

import os
import sys
import typing
from pathlib import Path

import skfocal

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
import draw_benchmarks  # noqa: E402
import draw_layers  # noqa: E402

project = "skfocal"
author = "skfocal developers"
copyright = author
release = version = skfocal.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*.py"]
templates_path = ["_templates"]
smartquotes = False  # quotes are code here: default="auto"
toc_object_entries_show_parents = "hide"

# -- Markdown ----------------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

# -- the reference -----------------------------------------------------------------------------
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings name the types
numpydoc_show_class_members = False  # the template of a class lists them
numpydoc_xref_param_type = False

# -- the gallery -------------------------------------------------------------------------------
# Scripts named plot_* and the quickstart are shown and run; SKFOCAL_GALLERY=0 runs none.
os.environ["TQDM_DISABLE"] = "1"  # bars would fill the pages
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/(plot_|quickstart)",
    "ignore_pattern": r"^(?!plot_|quickstart)",
    "thumbnail_size": (400, 280),
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "reference_url": {"skfocal": None},
    "doc_module": ("skfocal",),
    "backreferences_dir": None,
    "remove_config_comments": True,
    "plot_gallery": os.environ.get("SKFOCAL_GALLERY", "1") != "0",
}

# -- the pages ---------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "skfocal"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["skfocal.css"]
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {
        "text": "skfocal",
        "image_light": "_static/favicon.svg",
        "image_dark": "_static/favicon.svg",
    },
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "show_prev_next": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "from-your-loop": []},
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Pages without siblings, and one that needs the width to show code side by side.
_WIDE = ("index", "getting-started", "from-your-loop", "auto_examples/*")
_WIDE += ("contributing", "architecture", "changelog")
html_sidebars = dict.fromkeys(_WIDE, [])


def add_options(app, what, name, command, options, lines):
    """Add the options from a command's annotations to its docstring."""
    if not name.startswith("skfocal.cli."):
        return
    hints = {option: hint for option, hint in command.__annotations__.items() if option != "return"}
    if hints:
        lines += ["", "Parameters", "----------"]
        for option, hint in hints.items():
            kind, about = typing.get_args(hint)
            lines += [f"{option} : {getattr(kind, '__name__', kind)}", f"    {about.help}"]


def draw(app):
    """Draw the figures of the benchmarks, and the layers."""
    draw_benchmarks.main(DOCS / "benchmarks" / "figures")
    draw_layers.main(DOCS / "layers.svg")


def setup(app):
    """Complete the docstrings of commands, and draw before the pages are read."""
    app.connect("autodoc-process-docstring", add_options, priority=100)  # before numpydoc
    app.connect("builder-inited", draw)
