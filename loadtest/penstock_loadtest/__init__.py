"""The load-testing harness: runs servers in turns under the same load and reports ratios."""
