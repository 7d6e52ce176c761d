"""How hypothesis is used: a busy machine is no failure."""

from hypothesis import HealthCheck, settings

settings.register_profile("linod", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("linod")
