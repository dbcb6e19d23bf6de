"""What every Narupa service and client has in common."""
