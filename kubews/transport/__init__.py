"""Threads and sockets: everything that waits."""
