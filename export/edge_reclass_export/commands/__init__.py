"""The commands of the export package: the recipes of ``edge-reclass export``, and ``build`` and ``verify``."""
