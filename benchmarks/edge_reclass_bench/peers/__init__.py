"""Other programs' ways to do what edge-reclass does, for side-by-side runs and as oracles in tests."""
