"""dspm: database pages in the memory of a cluster."""
