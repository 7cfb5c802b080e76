-- Those of the keys that are the exchange's own: its deposit addresses, and those that were named as internal.
SELECT key FROM deposit_addresses WHERE chain_id = %(chain)s AND key = ANY (%(keys)s)
UNION
SELECT key FROM internal_addresses WHERE chain_id = %(chain)s AND key = ANY (%(keys)s)
