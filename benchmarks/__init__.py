"""One program for each claim, printing ratios measured in one run; README.md says how to run them and what was seen."""
