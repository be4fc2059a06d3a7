"""Models by name: where they are found, how they are read, and on what device they stand."""
