"""Files of request templates: uploaded line by line, listed, read, deleted, and what running them would cost.

An upload (`routes/upload.py`): form (`forms.py`) -> unpacked bytes (`codings.py`) -> lines that are right (`lines.py`, `custom_ids.py`) -> stored in
slices (`storing.py`). `intake.take_in` is the way from bytes to file, for whoever has bytes. A file is seen when all of it is there; what is
there of others belongs to a row of `fusillade.uploads`, and goes with it.
"""
