"""For tests: clocks that tests move, leak checks, and faults by name."""
