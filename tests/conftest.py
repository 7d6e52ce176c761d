"""For all tests."""

import signal

# Who runs them in the background of a script has let them ignore Ctrl-C, and all that they start would do so too.
signal.signal(signal.SIGINT, signal.default_int_handler)
