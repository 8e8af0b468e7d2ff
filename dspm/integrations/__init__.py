"""Programs that keep their data in the cluster without knowing it."""
