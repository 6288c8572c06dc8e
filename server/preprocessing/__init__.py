"""Pictures and texts to arrays, and ids back to text: pure functions of data and a contract."""
