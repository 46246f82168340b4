"""HTTP routes of people: sign-in under `/authentication`, the rest under the admin API; `all.BLUEPRINTS` lists them."""
