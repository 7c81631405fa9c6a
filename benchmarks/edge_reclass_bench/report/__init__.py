"""Reports: one table model for terminal, Markdown and HTML; pictures; the page."""
