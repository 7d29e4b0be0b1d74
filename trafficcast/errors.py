"""The two kinds of failure a person meets, and nothing else: anything else that escapes is a bug of ours."""


class InputError(ValueError):
    """The call, the configuration or the input is wrong: one sentence that says what and where. Exit code 2."""


class JobError(RuntimeError):
    """The call was right and the job itself failed. Exit code 1."""
