"""The pages that people open: server-rendered, with htmx for what changes and a few custom elements for what lives.

A page knows no table and no statement. What it shows and what its forms change goes through the admin API's own operations (`operations.run`): the same
permission, the same schema, the same function, in the page's own request. So a page shows what the API answers, and can show the call that answers it.
"""
