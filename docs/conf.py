"""How Sphinx builds these pages: `make docs`."""

import re
from typing import Any

import diffsampler

project = "diffsampler"
version = release = diffsampler.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "diffsampler"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # `rollout` in a docstring is a link where there is something to link to
autodoc_inherit_docstrings = False  # a method is documented once, where it is declared
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

SECTION = re.compile(r"(Arguments|Attributes|Example|Raises|References|Returns):$")
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5})")


def _escaped(line: str) -> str:
    """Docstrings write shapes as (*, D) and determinants as |J|, which Sphinx would take for markup."""
    parts = re.split(r"(`[^`]*`)", line)
    escaped = "".join(part if part.startswith("`") else re.sub(r"([*|])", r"\\\1", part) for part in parts)
    return ARXIV.sub(r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", escaped)


def _as_sphinx_reads(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before napoleon: formulas that are set apart by indentation keep their lines, references become a list."""
    found: list[str] = []
    section, is_formula, is_entry_over = "", False, True
    for line in lines:
        if line and not line.startswith(" "):
            title = SECTION.match(line)
            section, is_formula, is_entry_over = title[1] if title else "", False, True
        elif line and not section and not is_formula and found and not found[-1]:
            is_formula = True
            found += ["::", ""]
        if is_formula:
            found.append(line)
        elif section == "References" and line.startswith(" "):
            found.append(("    * " if is_entry_over else "      ") + _escaped(line.strip()))
            is_entry_over = line.endswith(".")
        else:
            found.append(_escaped(line))
    lines[:] = found


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _as_sphinx_reads, priority=100)
