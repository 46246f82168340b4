"""Files of request templates: uploaded line by line, listed, read, deleted, and what running them would cost.

An upload (`routes/upload.py`): form (`forms.py`) -> unpacked bytes (`codings.py`) -> lines that are right (`lines.py`, `custom_ids.py`) -> stored in
slices (`storing.py`). `intake.take_in` is the way from bytes to file, for whoever has bytes. A file is seen when all of it is there; what is
there of others belongs to a row of `fusillade.uploads`, and goes with it.

Tables: files, request_templates, file_models of the queue (written by its functions, `queue/batches.sql`); newcomers.
A batch's output and error file are files, too, without templates: what is in them, `downloads` makes of its requests.
A file goes from processed to expired, when its time has come, and to deleted, after a grace or by its owner; what is deleted is purged
(`duties.py`). A file that belongs to somebody else does not exist (404). The days' containers of single requests are in the same table and
never shown.
"""
