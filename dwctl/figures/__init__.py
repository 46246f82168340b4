"""What a process counts, as plain values: families of counters, gauges and histograms, added up over processes and written as a page.

`spreads` is what hot paths count with, `families` what a page is made of, `adding` the sum over processes, `page` Prometheus's text. Every
room may import it; which families there are is told in docs/metrics.md, and a test compares the two.
"""
