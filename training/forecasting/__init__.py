"""Series: the next values of a column, from its last ones and from those of other columns."""
