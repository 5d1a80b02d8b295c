"""The I/O process and its workers: batches over ZeroMQ IPC."""
