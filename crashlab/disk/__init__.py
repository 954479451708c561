"""Which disk images may a crash leave? Pure: operations and a disk contract go in, crash states come out."""
