"""Configures the site: sphinx-build -W -b html docs build/site."""

import bert_jax  # noqa: F401  a build without the package says so here, and not in a page

project = "bert_jax"
author = "The bert_jax authors"
copyright = "The bert_jax authors, Apache 2.0"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
html_theme = "furo"
html_title = "bert_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]

nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # [text](page.md#heading) works here as on a code host

default_role = "literal"  # `name` in docstrings
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_use_rtype = False
