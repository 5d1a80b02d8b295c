"""Who gets a message, in which order, and what handlers look like. Pure: no I/O, no clock."""
