"""Where a service keeps what must outlive it: one interface, kept in memory, in SQLite or in Redis."""
