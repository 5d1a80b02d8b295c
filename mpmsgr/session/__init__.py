"""Sessions: events in, actions out. No I/O, no clock; randomness is passed in.

`Endpoint` is the whole of it: it owns the registry of sessions, takes what happened to sockets
and timers, and returns what is to be done about it (`actions`).
"""
