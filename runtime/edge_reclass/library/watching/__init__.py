"""A library that is watched: files that are finished, roots that come and go, and the resident loop."""
