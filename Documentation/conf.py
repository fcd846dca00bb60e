# SPDX-License-Identifier: GPL-2.0-only
"""How Sphinx builds the documentation: make docs."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# Names that Sphinx gives its options.
# pylint: disable=invalid-name
project = 'dma-track'
author = 'The dma-track contributors'
copyright = '2026, ' + author  # pylint: disable=redefined-builtin
extensions = ['contract']
exclude_patterns = ['model/*']
html_theme = 'alabaster'
html_theme_options = {'page_width': '64em', 'sidebar_width': '14em',
                      'description': 'Live migration of guests that own '
                                     'passed-through PCI functions'}
html_show_sourcelink = False
highlight_language = 'none'
# A reference that leads nowhere is an error.
nitpicky = True
