"""For tests of plugins: services under test, and what goes wrong around them."""
