"""Settings of the documentation site. `make docs` builds it."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from sb3_vpg.version import __version__

project, author = "sb3-vpg", "The sb3-vpg developers"
project_copyright = author
release = __version__
html_title = f"sb3-vpg {release}"
# No network: the theme's fonts and icons are local, and no other project's pages are linked by name
extensions = ["myst_nb", "sphinx_design", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3  # in GitHub's form, so that the same links work there

nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_math_renderer = "mathml"
pygments_dark_style = "github-dark"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]


def setup(app: Sphinx) -> None:
    """Write formulas as MathML, which every browser shows without a script from the network."""

    def inline(translator: HTML5Translator, node: nodes.math) -> None:
        translator.body.append(convert(node.astext()))
        raise nodes.SkipNode

    def block(translator: HTML5Translator, node: nodes.math_block) -> None:
        translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
