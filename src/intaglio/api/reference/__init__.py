"""The OpenAPI document as a page: what `/docs` shows, and the site's page of the API.

Everything on it is taken from the document. It is plain HTML without scripts, so the browser's own search finds it all.
Knows no route.
"""
