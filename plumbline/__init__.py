"""The spine of the platform: settings, clock, lake, releases, ledger, stage runs and the `plumb` command."""

__version__ = "0.1.0"
