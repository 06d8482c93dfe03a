"""What can be wrong with a line of a CSV file that is no row."""

TOO_FEW, TOO_MANY = "too few fields", "too many fields"
BEFORE_HEADER, REPEATS_HEADER = "stands before the header", "repeats the header"
PROBLEMS = (TOO_FEW, TOO_MANY, BEFORE_HEADER, REPEATS_HEADER)
