"""Other ways to do what edge-reclass does, measured in turn with it in one run. ``command.peers`` is the command."""
