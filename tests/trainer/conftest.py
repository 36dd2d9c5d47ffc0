"""What the recipes' tests share with those of the services."""

from tests.nlu.conftest import bundled, untrained

__all__ = ["bundled", "untrained"]
