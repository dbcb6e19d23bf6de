"""How sessions are found on a local network: broadcasts that existing clients understand (ESSD), and multicast DNS."""
