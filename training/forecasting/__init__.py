"""Forecasting: the next values of a column, from its past and that of other columns."""
