"""The one exception that a person, not a programmer, has to read.

Commands turn a `UserError` into one line on stderr and exit status 2 (`detector.cli`); everything
else is a bug and keeps its traceback.
"""


class UserError(ValueError):
    """Something the user can mend: the message names the thing, what was expected, and the way out."""
