"""Files of other evaluation programs, read and written."""
