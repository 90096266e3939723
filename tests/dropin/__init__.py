"""What a client of Google's own protocol meets on the wire: here, and at the simulator directly."""
