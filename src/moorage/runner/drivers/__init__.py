"""Drivers: how a host runs allocations. Each keeps the promises of `driver.Driver` and says how much it isolates."""
