"""The site: Sphinx reads this file, and ``make docs`` builds it into docs/_build/html.

Notebooks are shown with the outputs that are stored in them (tools/notebook_outputs.py), so that a
build computes nothing. Formulae become MathML, so that a page needs no network.
"""

import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]  # this checkout, and what writes the API's pages
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import api_pages  # noqa: E402
import nbformat  # noqa: E402
import notebook_outputs  # noqa: E402

import jaxsnn  # noqa: E402

project = "jaxsnn"
author = "the authors of jaxsnn"
version = release = jaxsnn.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "conf.py"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_use_type_comments = False
napoleon_use_ivar = True  # fields of tuples and dataclasses stand in their class's docstring
napoleon_use_rtype = False

html_theme = "sphinx_book_theme"
html_title = "jaxsnn"
html_show_copyright = False
html_copy_source = False
html_theme_options = {"use_download_button": False, "show_toc_level": 2}
html_math_renderer = "mathml"

NOTEBOOKS = Path(__file__).parent / "tutorials"
"""Where copies of the notebooks lie, beside the page that lists them."""


def copy_notebooks() -> None:
    """Bring the notebooks below the folder that Sphinx reads, with a link to Colab below the title.

    There is a link as soon as pyproject.toml has the address of a repository on GitHub.
    """
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if place := notebook_outputs.in_colab(notebook_outputs.repository(), path.name):
            title, _, text = notebook.cells[0].source.partition("\n")
            notebook.cells[0].source = f"{title}\n\n[Open in Colab]({place})\n{text}"
        nbformat.write(notebook, NOTEBOOKS / path.name)


def inline_math(self: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_math(self: Any, node: nodes.math_block) -> None:
    """Write a formula of its own."""
    self.body.append(f"<p>{tex2mathml(node.astext(), as_block=True)}</p>")
    raise nodes.SkipNode


def at_the_copies(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links to notebooks lead to their copies."""
    del app, docname
    source[0] = re.sub(r"\]\(((?:\.\./)*)\.\./notebooks/", r"](\1tutorials/", source[0])


def unescaped(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write |sum| for a magnitude, which is a substitution elsewhere."""
    del app, name, options
    if what == "data" and "\n".join(lines).strip() == inspect.cleandoc(obj.__doc__ or "").strip():
        lines[:] = []  # that of its type says nothing about it
    lines[:] = [line.replace("|", r"\|") if "``" not in line else line for line in lines]


def skipped(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of tuples, which their class's docstring explains."""
    del app, what, name, options
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def covered(app: Sphinx, env: Any) -> None:
    """Warn, which ends the build, of a public name that no page documents."""
    del app
    documented = {name for name, *_ in env.get_domain("py").get_objects()}
    log = logging.getLogger(__name__)
    for room, names in api_pages.documented().items():
        for name in names - documented:
            log.warning("%s is public and on no page of the API (%s)", name, room)


copy_notebooks()


def setup(app: Sphinx) -> None:
    """Register formulae and checks."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("source-read", at_the_copies)
    app.connect("autodoc-process-docstring", unescaped)
    app.connect("autodoc-skip-member", skipped)
    app.connect("env-check-consistency", covered)
