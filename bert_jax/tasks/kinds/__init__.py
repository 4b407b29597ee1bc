"""The kinds of tasks, a file for each family; a row of the table of tasks names its kind."""
