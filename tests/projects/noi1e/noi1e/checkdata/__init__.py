"""Data checkers that the apps register, and the task that runs them."""
