"""The `narupa` command line."""
