"""The data card: what was read, what became of it and why, on one page.

``card.json`` for programs, pictures as SVG files, and ``index.html`` with everything inline, so that the one
file can be mailed, printed or opened from MLflow. All of it follows from
:class:`~baltoro.corpus.figures.Figures`: the same corpus gives the same bytes.

``card``   the figures as the card shows them
``svg``    shapes and texts
``flow``   the picture of the flow from sources to splits
``charts`` the pictures of lengths and years
``page``   the HTML page
"""

from baltoro.corpus.card.card import DataCard
from baltoro.corpus.card.page import card_files

__all__ = ["DataCard", "card_files"]
