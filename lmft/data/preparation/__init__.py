"""A source is tokenised in parts, by one process or several, and the parts become its token store."""
