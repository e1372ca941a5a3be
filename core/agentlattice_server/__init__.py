"""The governance core as a service. The room is reserved; the wire protocol lands in it with the next milestone."""
