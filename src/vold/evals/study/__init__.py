"""Studies: arms and seeds of a recipe (`study`), and a verdict on each claim by rules fixed before (`claims`)."""
