"""What the page of one call says, made of what the API answers about it. Pure, but for how numbers are written.

`telling` makes the steps and where they stand in time, `verdicts` the sentence above them, `advice` what to do about a failure, `sums` the price as a
sum, `texts` what was said. Whoever may not see how a call was served is told the same story without that.
"""
