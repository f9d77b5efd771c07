"""Probe runs: plan them, share them out among workers that may die, and collect what they reached."""
