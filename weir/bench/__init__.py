"""Load generator: closed loop or open loop, in one process or several."""
