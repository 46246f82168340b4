"""HTTP manners that every surface shares: error bodies, request ids, schemas, paging, path ids."""
