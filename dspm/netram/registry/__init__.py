"""The registry: membership and placement. Never on the data path; its state is one SQLite file."""
