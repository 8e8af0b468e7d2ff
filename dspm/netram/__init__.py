"""The cluster: wire, registry, placement, launching and asking nodes."""
