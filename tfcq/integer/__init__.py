"""Networks in integers: the form that int8 runtimes compute, and the files they read."""
