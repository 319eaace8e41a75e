"""The engine as seen from here: its contract spoken over a socket, or a fake of it in memory."""
