"""asyncio: sockets, timers, connections. The only place with peer sockets."""
