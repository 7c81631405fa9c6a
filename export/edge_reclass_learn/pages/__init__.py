"""One style for all pages: ``skeleton`` the page, ``table`` tables, ``text`` numbers and names, ``drawing`` pictures.

A page is one HTML file that loads nothing, in light and dark. Only ``drawing`` needs matplotlib.
"""
