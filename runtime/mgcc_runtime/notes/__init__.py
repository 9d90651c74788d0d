"""What a request asks for that its picture cannot have, told from the request's words alone."""
