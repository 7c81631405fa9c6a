"""``python -m edge_reclass``: the command line."""

from __future__ import annotations

from edge_reclass.cli.commands import main

if __name__ == "__main__":
    main()
