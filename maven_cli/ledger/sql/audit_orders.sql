-- Each order's lock is there, is its user's, and is open exactly as long as an order needs it.
WITH live AS (
    SELECT DISTINCT lock_id FROM orders WHERE lock_id IS NOT NULL AND status IN ('OPEN', 'PARTIALLY_FILLED')
)
SELECT 'order ' || o.id || ': ' || CASE
           WHEN l.id IS NULL THEN format('its lock %%s doesn''t exist', o.lock_id)
           WHEN w.user_id <> o.user_id THEN format('its lock %%s is user %%s''s, the order user %%s''s', l.id, w.user_id, o.user_id)
           WHEN o.status IN ('OPEN', 'PARTIALLY_FILLED') AND l.ended_at IS NOT NULL THEN format('it is %%s, but its lock %%s has ended', o.status, l.id)
           WHEN v.lock_id IS NULL AND l.ended_at IS NULL THEN format('it is %%s, but its lock %%s still holds %%s', o.status, l.id, trim_scale(l.remaining))
           END AS wrong,
       false AS unproven
  FROM orders o LEFT JOIN locks l ON l.id = o.lock_id LEFT JOIN wallets w ON w.id = l.wallet_id LEFT JOIN live v ON v.lock_id = o.lock_id
 WHERE o.lock_id IS NOT NULL
