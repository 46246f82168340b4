"""HTTP manners that every surface shares.

In front of Flask: `entrance` (`proxies`: where a request comes from; `paths`: which spelling is served; `hosts`), `cors`. Inside: `body_limits`, `schemas`
and `pagination` for what comes in, `errors`, `answer_headers`, `html` and `request_id` for what goes out.
"""
