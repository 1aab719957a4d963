"""Generated from the .proto file; see ``make proto``."""
