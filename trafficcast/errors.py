"""The two kinds of failure that users meet; every other exception that escapes is a bug of the program."""


class InputError(ValueError):
    """The call, the configuration or the input is wrong; one sentence says what and where. The exit code is 2."""


class JobError(RuntimeError):
    """The call was right and the job itself failed. The exit code is 1."""
