"""``metriloc serve``: anchors and maps that phones ask for poses over HTTP (extra ``serve``).

A request goes through these files, from the outside in:

| file | what it does |
|---|---|
| ``server.py`` | binds an address, closes connections that send nothing |
| ``guards.py`` | sizes, times, hosts and origins, tokens, rates, headers, the audit log |
| ``app.py`` | the API: one function a route |
| ``desk.py``, ``jobs.py`` | what each route does: decode, find, store; now, or when there is time |
| ``admission.py``, ``line.py`` | who is let in, and who is told to come again |
| ``decoders.py`` | uploads to files of plain numbers |
| ``children.py``, ``child.py`` | processes that do one job after the other, killed at their time limit |
| ``decoding.py``, ``poses.py`` | what runs in them: untrusted files; models |
| ``records.py``, ``blobs.py`` | what is stored: rows, and files by their hash |
| ``problems.py``, ``wording.py`` | what is said where something is wrong |
"""
