"""How hypothesis is used: always the same few examples by default; `python -m tests.fuzz` tries others, for long."""

from hypothesis import HealthCheck, Phase, settings

usual = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],  # it takes longer than all others
)
settings.register_profile("slice", usual, derandomize=True, database=None, max_examples=10)
settings.register_profile("fuzz", usual, max_examples=300, print_blob=True)
settings.load_profile("slice")
