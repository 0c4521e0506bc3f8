"""One module per system: train, convert, simulate, report; and what they share."""
