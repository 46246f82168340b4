"""What servers in the field say that the protocol does not allow: recorded (`streams`, `bodies`, `refusals`), and tried against every
surface and mode, as a client sees it that reads by the letter (`client`)."""
