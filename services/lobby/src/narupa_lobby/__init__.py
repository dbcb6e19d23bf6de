"""The lobby of a Narupa session: who is here, what runs where, and the tokens that services trust."""
