"""Contract suites: what every implementation of a seam has to hold, promise by promise."""
