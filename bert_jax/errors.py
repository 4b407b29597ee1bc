"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can mend: bad input, a misspelt key, a full disk.

    The message is one line: what is wrong, where (file, line, key), and what to do.
    Scripts print it without a traceback and exit with status 1.
    """
