"""How many examples property tests try: few in `make test`, ten times as many in `test-full`."""

from hypothesis import settings

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("full", max_examples=300, deadline=None)
settings.load_profile("quick")
