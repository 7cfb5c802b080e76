-- A deposit that was found again in another block, or as something else: it is followed from the beginning.
UPDATE deposits
   SET ordinal = %(ordinal)s, token_id = %(token)s, key = %(key)s, user_id = %(user)s, units = %(units)s, decimals = %(decimals)s,
       required = %(required)s, immature = %(immature)s, status = %(status)s, reason = %(reason)s, block_height = %(height)s,
       block_hash = %(hash)s, block_at = %(at)s, confirmations = 0, verified_at = NULL, verified_epoch = NULL, evidence = NULL,
       confirmed_at = NULL, missing_since = NULL, updated_at = now()
 WHERE id = %(id)s AND status <> 'CREDITED'
