"""Access to the server: TLS, bearer tokens, and which calls and models a token may use."""
