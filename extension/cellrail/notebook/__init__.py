"""A notebook as a flow: cells to steps, names, fingerprints, plans. Pure functions and records."""
