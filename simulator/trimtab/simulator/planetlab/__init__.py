"""The PlanetLab consolidation benchmark: one engine, its rules named and switched, compiled and in plain Python."""
