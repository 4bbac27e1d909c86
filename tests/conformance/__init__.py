"""Tests of the conformance run: its report, that its checks find out a wrong host, and a part of it for real."""
