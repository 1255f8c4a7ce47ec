"""The archive of raw events: what the log held, by the hour in which it happened."""
