"""The two OpenAPI documents: `/admin/openapi.json` and `/ai/openapi.json`.

Made from what is there anyway: the routes of the URL map, the marshmallow schemas that they read and write, their docstrings. Entry point:
`documents.build(app)`. `kinds` turns fields into JSON Schema, `operations` routes into operations, `refusals` knows which errors a route can
answer, `inference` describes the routes that are plain Flask, `published` holds the schemas of OpenAI and of Open Responses.
Nothing here reads the database. No tables.
"""
