"""The wire protocols as pure functions and state machines: bytes in, events out, no I/O, no threads, no clock."""
