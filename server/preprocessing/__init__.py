"""Pictures and texts to arrays, and ids back to text: pure functions of bytes, texts and a contract."""
