-- A deposit that wasn't known yet. The unique key on its identity refuses a second one.
INSERT INTO deposits (chain_id, tx_hash, kind, ordinal, token_id, key, user_id, units, decimals, required, immature, status, reason,
                      block_height, block_hash, block_at)
VALUES (%(chain)s, %(tx)s, %(kind)s, %(ordinal)s, %(token)s, %(key)s, %(user)s, %(units)s, %(decimals)s, %(required)s, %(immature)s,
        %(status)s, %(reason)s, %(height)s, %(hash)s, %(at)s)
RETURNING id
