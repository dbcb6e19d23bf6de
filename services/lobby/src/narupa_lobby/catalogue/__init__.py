"""What can be started and made on demand: a folder of specs, one to a file."""
