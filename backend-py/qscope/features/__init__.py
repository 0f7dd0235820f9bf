"""Features of SAEs on real text: what tells classes apart, where they fire, what language or loop they stand for."""
