"""Dispatcher modules to start from; they live in the repository and are not installed."""
