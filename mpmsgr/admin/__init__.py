"""What an operator sees and asks: admin socket, metrics, health, doctor, top."""
