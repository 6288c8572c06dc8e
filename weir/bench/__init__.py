"""Load against a running server: closed loop or open loop, one process or several."""
