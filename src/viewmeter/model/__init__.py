"""The shared words: events, views, time, the interval rule and the catalogue. No I/O and no clock in here."""
