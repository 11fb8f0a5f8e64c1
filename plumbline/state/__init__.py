"""What the platform remembers between commands: releases, ledger, candidates, acceptances and leases."""
