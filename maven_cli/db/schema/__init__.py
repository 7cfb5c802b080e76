"""The reference schema as SQLAlchemy tables. The migrations create it; a test compares the two.

Units: prices and quantities are NUMERIC(36,18) in whole coins; volumes are unconstrained NUMERIC, because price ×
quantity has up to 36 decimals and rounding them to 18 would change them. Times are timestamptz.
"""

from maven_cli.db.schema import deposits, market, money, operations
from maven_cli.db.schema.base import metadata

__all__ = ["deposits", "market", "metadata", "money", "operations"]
