"""When flows run: pure functions from expressions, zones and ranges to ticks."""
